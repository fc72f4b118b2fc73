//! The task that finds out what others revoke.

use std::{error::Error, sync::Arc, time::Duration};

use sqlx::SqlitePool;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    error::StoreError,
    log,
    revocation::rows::{Line, Shared},
    sql::{
        failed,
        sqlite::{BACKEND, Place, data_version, replaced},
        unavailable,
    },
};

/// The longest pause while the file cannot be read.
const LONGEST: Duration = Duration::from_secs(2);

/// What was read of the file.
struct Reading<'a> {
    shared: &'a Shared,
    place: &'a Place,
    line: Line<'a>,
    /// Where everything is known that was there with this version of the file.
    version: Option<i64>,
}

pub(super) async fn run(
    shared: Arc<Shared>,
    place: Place,
    reader: SqlitePool,
    every: Duration,
    loaded: watch::Sender<bool>,
) {
    let new = || Reading { shared: &shared, place: &place, line: Line::new(&shared), version: None };
    let (mut reading, mut pause, mut said) = (new(), every, false);
    loop {
        match reading.look(&reader).await {
            Ok(()) => {
                if said {
                    log::warn("revocations: the file can be read again, and all that it has is known");
                }
                (pause, said) = (every, false);
                loaded.send_if_modified(|loaded| !std::mem::replace(loaded, true));
            }
            Err(error) => {
                // From the beginning, then: nobody can say what was missed.
                reading = new();
                loaded.send_replace(false);
                if !said {
                    said = true;
                    let (why, path) = (error.source().map(ToString::to_string), place.path());
                    let why = why.unwrap_or_default();
                    log::error(&format!("revocations: what others revoke is not read from {path:?}: {error}: {why}"));
                }
                pause = pause.saturating_mul(2).min(LONGEST.max(every));
            }
        }
        sleep(pause).await;
    }
}

impl Reading<'_> {
    /// Reads what is new, if anybody wrote, and says that nothing is missing.
    async fn look(&mut self, reader: &SqlitePool) -> Result<(), StoreError> {
        let before = self.shared.clock.now();
        if !self.place.is_there().await? {
            // Others would write to another file, and nobody here would hear of it.
            self.shared.distrust();
            return Err(replaced());
        }
        let mut connection = reader.acquire().await.map_err(|error| failed(BACKEND, error))?;
        let version = timeout(self.shared.timeout, data_version(&mut connection)).await;
        let version = Some(version.unwrap_or_else(|_| Err(unavailable(BACKEND, "no answer in time")))?);
        if version == self.version {
            self.shared.state.confirm(before);
            return Ok(());
        }
        self.line.catch_up(&mut *connection).await?;
        self.version = version;
        Ok(())
    }
}
