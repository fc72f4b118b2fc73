//! Several authenticators as one: any of them, or two at once.

mod both;
mod one_of;

use http::HeaderName;

pub use self::{
    both::{Both, both},
    one_of::{Choice, OneOf, one_of},
};
use crate::rejection::{Rejection, RejectionKind};

fn whose_it_is() -> Rejection {
    let reason =
        "two authenticators would hand this Authorization to somebody else, and nothing tells which of them it is for";
    Rejection::new(RejectionKind::Misconfigured, reason)
}

fn union(lists: impl IntoIterator<Item = Vec<HeaderName>>) -> Vec<HeaderName> {
    let mut all: Vec<HeaderName> = Vec::new();
    for name in lists.into_iter().flatten() {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}
