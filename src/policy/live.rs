//! A policy that is replaced as a whole while it is asked: from files, looked at again and again.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;

use crate::{
    error::ConfigError,
    event::{self, Event, EventKind},
    log,
    policy::{
        ReloadState,
        files::{Files, SourceText},
    },
};

/// What a reload did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition: a reload that fails is an error")]
pub enum Reloaded {
    /// The newer policy runs.
    Replaced,
    /// The files say what they said when they were last accepted. What runs stays, also if it was put there by hand.
    Unchanged,
}

/// A policy that can be replaced.
pub(crate) trait Versioned: Send + Sync + 'static {
    /// What records call it.
    fn version(&self) -> &str;
}

/// From texts to a policy; what is wrong with them is found here.
type Compile<T> = dyn Fn(&[SourceText]) -> Result<T, ConfigError> + Send + Sync;

/// A policy that is asked while it is replaced: whoever asks takes the one that runs, without a lock.
pub(crate) struct Live<T> {
    current: ArcSwap<T>,
    generation: AtomicU64,
    /// Grows with each change of how the policy is held, too.
    revision: AtomicU64,
    /// Held by whoever replaces the policy, and by nobody else.
    replacing: Mutex<Replacing<T>>,
    state: Mutex<ReloadState>,
    origin: Option<(Files, Box<Compile<T>>)>,
}

struct Replacing<T> {
    /// What the files said when they were last accepted: until they say something else, whatever runs stays.
    accepted: Vec<SourceText>,
    /// What is wrong with the files, while something is.
    refused: Option<Refused>,
    /// Policies that were replaced and that somebody may still ask. They are kept here so that whoever replaces frees them,
    /// and not whoever asks: to free a large one takes long.
    replaced: Vec<Arc<T>>,
}

/// Files that are not accepted.
#[derive(PartialEq, Eq)]
struct Refused {
    /// What they say; nothing if they cannot be read.
    texts: Vec<SourceText>,
    why: Arc<str>,
}

impl<T> Replacing<T> {
    fn free_what_nobody_asks(&mut self) {
        self.replaced.retain(|policy| Arc::strong_count(policy) > 1);
    }
}

impl<T: Versioned> Live<T> {
    /// A policy that is replaced by hand alone.
    pub(crate) fn new(policy: T) -> Self {
        Self::with_origin(policy, Vec::new(), None)
    }

    /// Reads a policy from files. This blocks.
    pub(crate) fn from_files(
        files: Files,
        compile: impl Fn(&[SourceText]) -> Result<T, ConfigError> + Send + Sync + 'static,
    ) -> Result<Self, ConfigError> {
        let texts = files.read(&[])?;
        let policy = compile(&texts)?;
        Ok(Self::with_origin(policy, texts, Some((files, Box::new(compile)))))
    }

    fn with_origin(policy: T, accepted: Vec<SourceText>, origin: Option<(Files, Box<Compile<T>>)>) -> Self {
        Self {
            current: ArcSwap::from_pointee(policy),
            generation: AtomicU64::new(0),
            revision: AtomicU64::new(0),
            replacing: Mutex::new(Replacing { accepted, refused: None, replaced: Vec::new() }),
            state: Mutex::new(ReloadState::new()),
            origin,
        }
    }

    /// The policy that runs. One request decides by one of them.
    pub(crate) fn load(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Grows with each policy. Read before [`load`](Self::load), it is never newer than what that gives.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Grows whenever [`load`](Self::load) gives something else. Read before it, it is never newer than what that gives.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    pub(crate) fn state(&self) -> ReloadState {
        lock(&self.state).clone()
    }

    /// Replaces the policy by what `make` makes of the one that runs, or leaves it as it is.
    pub(crate) fn replace(&self, make: impl FnOnce(&T) -> Result<T, ConfigError>) -> Result<(), ConfigError> {
        let mut replacing = lock(&self.replacing);
        let made = make(&self.current.load());
        match made {
            Ok(policy) => {
                self.put(policy, &mut replacing);
                Ok(())
            }
            Err(error) => {
                self.refuse(&error);
                Err(error)
            }
        }
    }

    /// Changes how the policy is held, not what it says: the generation stays.
    pub(crate) fn amend(&self, make: impl FnOnce(&T) -> T) {
        let mut replacing = lock(&self.replacing);
        let amended = make(&self.current.load());
        replacing.replaced.push(self.current.swap(Arc::new(amended)));
        replacing.free_what_nobody_asks();
        self.revision.fetch_add(1, Ordering::Release);
    }

    /// Reads the files again, and replaces the policy if they say something else than what was accepted last, and it is good.
    /// This blocks.
    pub(crate) fn reload(&self) -> Result<Reloaded, ConfigError> {
        let Some((files, compile)) = &self.origin else {
            return Err(ConfigError::new("policy", "a text", "has no file to be read again"));
        };
        let mut replacing = lock(&self.replacing);
        replacing.free_what_nobody_asks();
        let texts = match files.read(&replacing.accepted) {
            Ok(texts) => texts,
            Err(error) => return self.refuse_files(Vec::new(), error, &mut replacing),
        };
        if texts == replacing.accepted {
            // Files that are good again, or a policy that was refused when it was put by hand: nothing is newer than what runs.
            replacing.refused = None;
            let mut state = lock(&self.state);
            *state = std::mem::take(&mut *state).recovered();
            drop(state);
            return Ok(Reloaded::Unchanged);
        }
        // A parser that panics has refused them, and whoever looks at the state is to know.
        let compiled = catch_unwind(AssertUnwindSafe(|| compile(&texts)));
        let policy = match compiled
            .unwrap_or_else(|_| Err(ConfigError::new("policy files", self.name(), "cannot be compiled: it panics")))
        {
            Ok(policy) => policy,
            Err(error) => return self.refuse_files(texts, error, &mut replacing),
        };
        replacing.accepted = texts;
        replacing.refused = None;
        self.put(policy, &mut replacing);
        Ok(Reloaded::Replaced)
    }

    /// Tells of files that are not accepted, once for as long as they stay as they are.
    fn refuse_files(
        &self,
        texts: Vec<SourceText>,
        error: ConfigError,
        replacing: &mut Replacing<T>,
    ) -> Result<Reloaded, ConfigError> {
        let refused = Some(Refused { texts, why: described(&error).into() });
        if replacing.refused != refused {
            self.refuse(&error);
            replacing.refused = refused;
        }
        Err(error)
    }

    fn put(&self, policy: T, replacing: &mut Replacing<T>) {
        let version = policy.version().to_owned();
        let replaced = self.current.swap(Arc::new(policy));
        if replaced.version() == version {
            log::warn(&format!(
                "{}: a newer policy has the version of the one before, {version:?}: records do not tell which of them decided",
                self.name()
            ));
        }
        replacing.replaced.push(replaced);
        replacing.free_what_nobody_asks();
        self.revision.fetch_add(1, Ordering::Release);
        self.generation.fetch_add(1, Ordering::Release);
        {
            let mut state = lock(&self.state);
            *state = std::mem::take(&mut *state).succeeded();
            // A policy that is put by hand mends no file.
            if let Some(Refused { why, .. }) = &replacing.refused {
                *state = std::mem::take(&mut *state).failing_still(Arc::clone(why));
            }
        }
        let generation = self.generation().to_string();
        let told = Event::new(EventKind::PolicyReloaded, self.name());
        event::tell(told.with("generation", generation).with("version", version));
    }

    fn refuse(&self, error: &ConfigError) {
        let why = described(error);
        log::error(&format!("a newer policy is refused, the one that runs stays: {why}"));
        event::tell(Event::new(EventKind::PolicyRefused, self.name()).with("reason", &*why));
        let mut state = lock(&self.state);
        *state = std::mem::take(&mut *state).failed(why);
    }

    /// What records call it: its first file.
    fn name(&self) -> String {
        self.origin.as_ref().map_or_else(|| "policy".to_owned(), |(files, _)| files.name())
    }

    /// Looks at the files again and again, until the policy is dropped.
    ///
    /// # Errors
    /// If there are no files, the time is shorter than a second, or no tokio runtime runs here.
    pub(crate) fn watch(self: &Arc<Self>, every: Duration) -> Result<(), ConfigError> {
        let refuse = |problem: &str| ConfigError::new("policy watch", format!("{every:?}"), problem);
        if self.origin.is_none() {
            return Err(refuse("has no file to look at: the policy comes from a text"));
        }
        if every < Duration::from_secs(1) {
            return Err(refuse("must be at least one second"));
        }
        let runtime = Handle::try_current().map_err(|_| refuse("needs a tokio runtime: call it inside one"))?;
        let policy = Arc::downgrade(self);
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let Some(policy) = policy.upgrade() else { return };
                // What comes of it is in the state and in the log.
                let looked = tokio::task::spawn_blocking(move || drop(policy.reload()));
                if looked.await.is_err() {
                    log::error("a look at the policy's files was cut short");
                }
            }
        });
        Ok(())
    }
}

/// The error with what led to it.
fn described(error: &ConfigError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> fmt::Debug for Live<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("generation", &self.generation).field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::Write,
        path::{Path, PathBuf},
    };

    use super::*;

    impl Versioned for u32 {
        fn version(&self) -> &str {
            "of tests"
        }
    }

    /// A policy that is a number, from a file that says one.
    fn number(texts: &[SourceText]) -> Result<u32, ConfigError> {
        let [SourceText { name, text }] = texts else { panic!("one file") };
        text.trim().parse().map_err(|error| ConfigError::new(name, text, "is no number").caused_by(error))
    }

    fn write(path: &Path, text: &str) {
        File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn live(dir: &tempfile::TempDir) -> (PathBuf, Arc<Live<u32>>) {
        let path = dir.path().join("policy");
        write(&path, "1");
        let live = Live::from_files(Files::new([&path], 8), number).unwrap();
        (path, Arc::new(live))
    }

    fn told(live: &Live<u32>) -> (u32, u64, u64, u64, bool) {
        let state = live.state();
        (*live.load(), live.generation(), state.reloads(), state.failures(), state.failing().is_some())
    }

    #[test]
    fn a_bad_policy_never_runs_and_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let (path, live) = live(&dir);
        assert_eq!(live.reload().unwrap(), Reloaded::Unchanged);
        assert_eq!(told(&live), (1, 0, 0, 0, false));
        write(&path, "two");
        assert!(live.reload().is_err() && live.reload().is_err(), "also at the second look");
        assert_eq!(told(&live), (1, 0, 0, 1, true));
        assert!(live.state().failing().unwrap().contains("policy: two is no number: invalid digit"));
        write(&path, "three");
        assert!(live.reload().is_err());
        assert_eq!(told(&live), (1, 0, 0, 2, true));
        write(&path, "2");
        assert_eq!(live.reload().unwrap(), Reloaded::Replaced);
        assert_eq!(told(&live), (2, 1, 1, 2, false));
        write(&path, "more than 8");
        assert!(live.reload().unwrap_err().to_string().contains("has more than 8 bytes"));
        std::fs::remove_file(&path).unwrap();
        assert!(live.reload().is_err() && live.reload().is_err());
        assert_eq!(told(&live), (2, 1, 1, 4, true));
        // The file is back as it was: what runs is what it says.
        write(&path, "2");
        assert_eq!(live.reload().unwrap(), Reloaded::Unchanged);
        assert_eq!(told(&live), (2, 1, 1, 4, false));
    }

    #[test]
    fn what_was_put_by_hand_stays_until_the_file_says_something_else() {
        let dir = tempfile::tempdir().unwrap();
        let (path, live) = live(&dir);
        live.replace(|_| Ok(9)).unwrap();
        for trouble in ["missing", "bad", "too long to be read"] {
            std::fs::remove_file(&path).unwrap();
            if trouble != "missing" {
                write(&path, trouble);
            }
            assert!(live.reload().is_err(), "{trouble}");
            write(&path, "1");
            assert_eq!(live.reload().unwrap(), Reloaded::Unchanged, "{trouble}");
            assert_eq!((*live.load(), live.state().failing()), (9, None), "{trouble}");
        }
        write(&path, "2");
        assert_eq!(live.reload().unwrap(), Reloaded::Replaced);
        write(&path, "1");
        assert_eq!(live.reload().unwrap(), Reloaded::Replaced, "it is not what was accepted last");
        assert_eq!(*live.load(), 1);
    }

    #[test]
    fn a_file_that_is_still_bad_is_told_also_after_a_policy_was_put_by_hand() {
        let dir = tempfile::tempdir().unwrap();
        let (path, live) = live(&dir);
        write(&path, "two");
        assert!(live.reload().is_err());
        live.replace(|_| Ok(9)).unwrap();
        assert_eq!(told(&live), (9, 1, 1, 1, true));
        assert!(live.state().failing().unwrap().contains("two is no number"));
        assert!(live.reload().is_err());
        assert_eq!(told(&live), (9, 1, 1, 1, true), "it stays as it is, and counts once");
        write(&path, "2");
        assert_eq!(live.reload().unwrap(), Reloaded::Replaced);
        assert_eq!(told(&live), (2, 2, 2, 1, false));
    }

    #[test]
    fn a_policy_that_was_refused_by_hand_is_told_until_the_next_look_at_good_files() {
        let dir = tempfile::tempdir().unwrap();
        let (path, live) = live(&dir);
        let nonsense = || live.replace(|_| Err(ConfigError::new("policy", "3", "is odd")));
        assert!(nonsense().is_err());
        assert_eq!(told(&live), (1, 0, 0, 1, true));
        assert_eq!(live.reload().unwrap(), Reloaded::Unchanged);
        assert_eq!(told(&live), (1, 0, 0, 1, false));
        write(&path, "two");
        assert!(live.reload().is_err() && nonsense().is_err() && live.reload().is_err());
        assert_eq!(told(&live), (1, 0, 0, 3, true), "files that are bad are told as long as they are");
    }

    #[test]
    fn files_on_which_the_parser_panics_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy");
        write(&path, "1");
        let explode = |texts: &[SourceText]| if texts[0].text == "boom" { panic!("boom") } else { number(texts) };
        let live = Arc::new(Live::from_files(Files::new([&path], 8), explode).unwrap());
        write(&path, "boom");
        assert!(live.reload().is_err() && live.reload().is_err());
        assert_eq!(told(&live), (1, 0, 0, 1, true));
        assert!(live.state().failing().unwrap().contains("panics"));
        write(&path, "2");
        assert_eq!(live.reload().unwrap(), Reloaded::Replaced);
        assert_eq!(told(&live), (2, 1, 1, 1, false));
    }

    #[test]
    fn who_asks_never_frees_a_policy() {
        let live = Live::new(1);
        let asked = live.load();
        live.replace(|_| Ok(2)).unwrap();
        let kept = |live: &Live<u32>| lock(&live.replacing).replaced.iter().map(|policy| **policy).collect::<Vec<_>>();
        assert_eq!(kept(&live), [1], "it is still asked");
        drop(asked);
        assert_eq!(kept(&live), [1], "and not freed when it is no more");
        live.replace(|_| Ok(3)).unwrap();
        assert!(kept(&live).is_empty());
    }

    #[test]
    fn replaced_by_hand() {
        let live = Arc::new(Live::new(1));
        live.replace(|old| Ok(old + 1)).unwrap();
        live.amend(|old| old + 10);
        assert!(live.replace(|_| Err(ConfigError::new("policy", "3", "is odd"))).is_err());
        assert_eq!(told(&live), (12, 1, 1, 1, true));
        assert!(live.reload().unwrap_err().to_string().contains("no file"));
        assert!(live.watch(Duration::from_secs(9)).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_files_are_looked_at_until_the_policy_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let (path, live) = live(&dir);
        assert!(live.watch(Duration::from_millis(999)).is_err());
        live.watch(Duration::from_secs(5)).unwrap();
        write(&path, "2");
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(*live.load(), 1);
        until(|| *live.load() == 2).await;
        write(&path, "nonsense");
        until(|| live.state().failing().is_some()).await;
        assert_eq!(*live.load(), 2);
        let gone = Arc::downgrade(&live);
        drop(live);
        until(|| gone.strong_count() == 0).await;
    }

    /// A look runs on a thread of its own: time that stands still passes by itself, but only while nobody else runs.
    async fn until(is: impl Fn() -> bool) {
        for _ in 0..100 {
            if is() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("it never came");
    }
}
