//! Work that is finished, whoever waits for it: a store goes on where a client hangs up, and what it did must be told.

use std::panic::resume_unwind;

use tokio::{runtime::Handle, task::JoinError};

/// Does the work in a task of its own; without a tokio runtime, in place. A panic in it goes on in who waits.
///
/// # Errors
/// If the runtime ended before the work did.
pub(crate) async fn finished<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, JoinError> {
    let Ok(runtime) = Handle::try_current() else { return Ok(work.await) };
    runtime.spawn(work).await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => resume_unwind(panic),
        Err(error) => error,
    })
}
