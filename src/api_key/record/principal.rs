//! Who a key authenticates: made once, and kept with its record.

use std::{ptr, sync::Arc};

use super::ApiKeyRecord;
use crate::{
    principal::{Principal, PrincipalKind},
    voucher::Voucher,
};

/// The principal, and where the name of its issuer stands, which the principal keeps there: a look at the name itself would
/// wait for another line.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    issuer: usize,
    principal: Principal,
}

impl ApiKeyRecord {
    /// Who the key authenticates, as the store of this name vouches for it. Costs one reference count, but for the first
    /// time, and for a second name or a second authenticator.
    pub(in crate::api_key) fn principal(&self, store_name: &Arc<str>, voucher: &Arc<dyn Voucher>) -> Principal {
        let issuer = Arc::as_ptr(store_name).addr();
        let kept = self.principal.get_or_init(|| Kept { issuer, principal: self.new_principal(store_name, voucher) });
        let vouched =
            kept.principal.voucher().is_some_and(|held| ptr::addr_eq(Arc::as_ptr(held), Arc::as_ptr(voucher)));
        if vouched && (kept.issuer == issuer || kept.principal.issuer() == &**store_name) {
            return kept.principal.clone();
        }
        self.new_principal(store_name, voucher)
    }

    fn new_principal(&self, store_name: &Arc<str>, voucher: &Arc<dyn Voucher>) -> Principal {
        let issuer = Arc::clone(store_name);
        let mut principal = Principal::builder(PrincipalKind::Key, issuer, self.subject(), "api_key")
            .credential_id(self.id().to_string())
            .vouched_by(Arc::clone(voucher))
            .without_step_up()
            .scopes(self.scopes())
            .roles(self.roles());
        if let Some(tenant) = self.tenant() {
            principal = principal.tenant(tenant);
        }
        if let Some(plan) = self.plan() {
            principal = principal.plan(plan);
        }
        if let Some(end) = self.expires() {
            principal = principal.expires_at(end);
        }
        principal.build()
    }
}
