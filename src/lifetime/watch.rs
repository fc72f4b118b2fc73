use std::{
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::task::coop::{self, RestoreOnPending};

use crate::voucher::Ended;

/// What is under way until the end: a pause, or a question to a store. It goes on from poll to poll, whoever polls.
#[derive(Default)]
pub(super) struct Watch {
    /// Made when there is something to wait for. The lock is never taken: it makes the future fit for bodies that threads share.
    ended: Option<Mutex<Pin<Box<dyn Future<Output = Ended> + Send>>>>,
}

impl Clone for Watch {
    /// Each asks for itself.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Watch {
    /// Goes on with what is under way, or begins. After an end it begins anew.
    pub(super) fn poll<F>(&mut self, cx: &mut Context<'_>, begin: impl FnOnce() -> F) -> Poll<Ended>
    where
        F: Future<Output = Ended> + Send + 'static,
    {
        let ended = self.ended.get_or_insert_with(|| Mutex::new(Box::pin(begin())));
        let ended = ready!(ended.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut().poll(cx));
        self.ended = None;
        Poll::Ready(ended)
    }

    /// Lets the runtime have its turn among items that are always there: without it neither timer nor store would come to theirs.
    pub(super) fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<Option<RestoreOnPending>> {
        match self.ended {
            Some(_) => coop::poll_proceed(cx).map(Some),
            None => Poll::Ready(None),
        }
    }
}

/// Says that an item came of the turn.
pub(super) fn came_of(turn: Option<RestoreOnPending>) {
    if let Some(turn) = turn {
        turn.made_progress();
    }
}
