//! The policy that runs, and the handles that were made of it.

use std::{
    cell::RefCell,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::policy::{
    live::{Live, Versioned},
    rbac::table::{Positions, Table},
};

/// A policy, and where it has what handles name: a handle finds its permission without looking for the name, also after a
/// reload, and finds nothing if the newer policy does not know it.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) table: Arc<Table>,
    permissions: Box<[Option<usize>]>,
    roles: Box<[Option<usize>]>,
}

impl Versioned for Snapshot {
    fn version(&self) -> &str {
        &self.table.version
    }
}

impl Snapshot {
    pub(super) fn new(table: Arc<Table>, handles: &Handles) -> Self {
        let names = handles.lock();
        let places =
            |names: &[Arc<str>], known: &Positions| names.iter().map(|name| known.get(name).copied()).collect();
        Self {
            permissions: places(&names.permissions, &table.permission_positions),
            roles: places(&names.roles, &table.role_positions),
            table,
        }
    }

    /// Where the permission of a handle stands.
    #[inline]
    pub(super) fn permission(&self, slot: usize) -> Option<usize> {
        self.permissions.get(slot).copied().flatten()
    }

    /// Where the role of a handle stands.
    pub(super) fn role(&self, slot: usize) -> Option<usize> {
        self.roles.get(slot).copied().flatten()
    }
}

/// The names that handles were made for. Code makes handles, so there are few.
#[derive(Debug, Default)]
pub(super) struct Handles(Mutex<HandleNames>);

#[derive(Debug, Default)]
struct HandleNames {
    permissions: Vec<Arc<str>>,
    roles: Vec<Arc<str>>,
}

impl Handles {
    fn lock(&self) -> MutexGuard<'_, HandleNames> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn permission(&self, name: &Arc<str>) -> usize {
        slot(&mut self.lock().permissions, name)
    }

    pub(super) fn role(&self, name: &Arc<str>) -> usize {
        slot(&mut self.lock().roles, name)
    }

    /// The permissions and roles of handles that a policy does not know: what they guard refuses.
    pub(super) fn missing_in(&self, table: &Table) -> Vec<String> {
        let names = self.lock();
        let missing = |names: &[Arc<str>], known: &Positions, what: &str| {
            let gone = names.iter().filter(|name| !known.contains_key(*name));
            gone.map(|name| format!("{what} {name:?}")).collect::<Vec<_>>()
        };
        let mut gone = missing(&names.permissions, &table.permission_positions, "permission");
        gone.extend(missing(&names.roles, &table.role_positions, "role"));
        gone
    }
}

fn slot(names: &mut Vec<Arc<str>>, name: &Arc<str>) -> usize {
    names.iter().position(|held| held == name).unwrap_or_else(|| {
        names.push(Arc::clone(name));
        names.len() - 1
    })
}

/// A live policy that each thread keeps the newest of: to ask it costs two loads and no reference count.
#[derive(Debug)]
pub(super) struct Newest {
    id: u64,
    pub(super) live: Arc<Live<Snapshot>>,
}

struct Kept {
    id: u64,
    revision: u64,
    snapshot: Arc<Snapshot>,
}

thread_local! {
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

impl Newest {
    pub(super) fn new(live: Live<Snapshot>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), live: Arc::new(live) }
    }

    /// Asks the policy that runs.
    #[inline]
    pub(super) fn ask<R>(&self, ask: impl Fn(&Snapshot) -> R) -> R {
        let revision = self.live.revision();
        // Put here and not handed out: an answer inside two others would be moved for each.
        let mut answer = None;
        let _ = KEPT.try_with(|kept| {
            if let Ok(kept) = kept.try_borrow()
                && let Some(newest) = &*kept
                && newest.id == self.id
                && newest.revision == revision
            {
                answer = Some(ask(&newest.snapshot));
            }
        });
        match answer {
            Some(answer) => answer,
            None => self.ask_anew(revision, ask),
        }
    }

    #[cold]
    fn ask_anew<R>(&self, revision: u64, ask: impl Fn(&Snapshot) -> R) -> R {
        // The revision was read before: what is kept under it is never older.
        let snapshot = self.live.load();
        let answer = ask(&snapshot);
        let _ = KEPT.try_with(|kept| {
            if let Ok(mut kept) = kept.try_borrow_mut() {
                *kept = Some(Kept { id: self.id, revision, snapshot });
            }
        });
        answer
    }
}
