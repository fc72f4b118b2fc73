//! What a record is about, in memory that is used again.

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method, Version};

use crate::{
    audit::{AuditIdentity, AuditOutcome, Privacy},
    client::ClientInfo,
    context::{RequestId, Stage},
    rejection::RejectionKind,
    trail::Trail,
};

pub(crate) struct Facts {
    pub(crate) unix_nanos: u64,
    pub(crate) latency: Duration,
    pub(crate) request_id: RequestId,
    /// What the request brought along, as it came.
    pub(crate) sent_request_id: String,
    pub(crate) sent_traceparent: String,
    pub(crate) request_id_twice: bool,
    pub(crate) traceparent_twice: bool,
    pub(crate) by_trusted_proxy: bool,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) route: Option<Arc<str>>,
    pub(crate) version: Version,
    pub(crate) client: Option<ClientInfo>,
    pub(crate) subject: Option<AuditIdentity>,
    pub(crate) client_identity: Option<AuditIdentity>,
    pub(crate) rejection: Option<(RejectionKind, Cow<'static, str>)>,
    pub(crate) refused_by: Option<Stage>,
    pub(crate) stopped_in: Option<&'static str>,
    pub(crate) status: Option<u16>,
    pub(crate) grpc_status: Option<u16>,
    pub(crate) outcome: AuditOutcome,
    pub(crate) trail: Trail,
    pub(crate) privacy: Option<Arc<Privacy>>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            unix_nanos: 0,
            latency: Duration::ZERO,
            request_id: RequestId::NONE,
            sent_request_id: String::new(),
            sent_traceparent: String::new(),
            request_id_twice: false,
            traceparent_twice: false,
            by_trusted_proxy: false,
            headers: Vec::new(),
            method: Method::GET,
            path: String::new(),
            route: None,
            version: Version::HTTP_11,
            client: None,
            subject: None,
            client_identity: None,
            rejection: None,
            refused_by: None,
            stopped_in: None,
            status: None,
            grpc_status: None,
            outcome: AuditOutcome::Allowed,
            trail: Trail::default(),
            privacy: None,
        }
    }
}

impl Facts {
    /// Whether nobody was authenticated.
    pub(crate) const fn is_of_stranger(&self) -> bool {
        self.subject.is_none() && self.client_identity.is_none()
    }

    /// Forgets everything but the memory of its texts. Field by field: most of them are empty, and a whole default would be
    /// made and moved here.
    pub(crate) fn clear(&mut self) {
        // What an entry always sets anew needs no clearing.
        let Self {
            unix_nanos: _,
            latency: _,
            request_id: _,
            sent_request_id,
            sent_traceparent,
            request_id_twice: _,
            traceparent_twice: _,
            by_trusted_proxy: _,
            headers,
            method,
            path,
            route,
            version: _,
            client,
            subject,
            client_identity,
            rejection,
            refused_by,
            stopped_in: _,
            status,
            grpc_status,
            outcome: _,
            trail,
            privacy,
        } = self;
        // It may be as long as its client likes.
        *method = Method::GET;
        sent_request_id.clear();
        sent_traceparent.clear();
        path.clear();
        headers.clear();
        *route = None;
        *client = None;
        (*subject, *client_identity) = (None, None);
        (*rejection, *refused_by) = (None, None);
        (*status, *grpc_status) = (None, None);
        trail.clear();
        *privacy = None;
    }
}
