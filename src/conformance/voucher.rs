use crate::{
    clock::Instants,
    now::Now,
    principal::Principal,
    voucher::{Ended, Voucher},
};

/// Checks what every [`Voucher`] must do: it vouches for `good`, and not for `revoked`; the answer at once and the answer after
/// waiting are the same, and the same question gets the same answer again.
///
/// # Panics
/// With a sentence that names the broken rule.
pub async fn voucher(voucher: &dyn Voucher, good: &Principal, revoked: &Principal, at: Instants) {
    for (name, principal, expected) in
        [("the good principal", good, Ok(())), ("the revoked principal", revoked, Err(Ended::Revoked))]
    {
        for _ in 0..2 {
            assert_eq!(voucher.vouches(principal, at).await, expected, "{name}, asked after waiting");
            if let Now::Known(answer) = voucher.vouches_now(principal, at) {
                assert_eq!(answer, expected, "{name}, asked at once");
            }
        }
    }
}
