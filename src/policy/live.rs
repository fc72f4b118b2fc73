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
    lookout::{Lookout, has_timer},
    policy::{
        ReloadState,
        files::{Files, SourceText},
    },
};

/// How seldom files may be looked at: what a newer policy takes away is allowed until then.
pub(crate) const LONGEST_WATCH: Duration = Duration::from_secs(24 * 60 * 60);

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
    lookout: Lookout,
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

/// What came of it, for the log and the audit sinks. Told once the lock is let go: both may be the user's own, and reach for the policy.
#[must_use]
struct News {
    warning: Option<String>,
    error: Option<String>,
    event: Event,
}

impl News {
    fn tell(self) {
        self.warning.into_iter().for_each(|line| log::warn(&line));
        self.error.into_iter().for_each(|line| log::error(&line));
        event::tell(self.event);
    }
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
            lookout: Lookout::default(),
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
        let state = lock(&self.state).clone();
        match self.lookout.ended() {
            Some(why) if state.failing().is_none() => state.failing_still(why.into()),
            _ => state,
        }
    }

    /// Replaces the policy by what `make` makes of the one that runs, or leaves it as it is.
    pub(crate) fn replace(&self, make: impl FnOnce(&T) -> Result<T, ConfigError>) -> Result<(), ConfigError> {
        let mut replacing = lock(&self.replacing);
        let made = make(&self.current.load());
        let (done, news) = match made {
            Ok(policy) => (Ok(()), self.put(policy, &mut replacing)),
            Err(error) => {
                let news = self.refuse(&error);
                (Err(error), news)
            }
        };
        drop(replacing);
        news.tell();
        done
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
        let (done, news) = self.read_again(files, compile, &mut replacing);
        drop(replacing);
        news.into_iter().for_each(News::tell);
        done
    }

    fn read_again(
        &self,
        files: &Files,
        compile: &Compile<T>,
        replacing: &mut Replacing<T>,
    ) -> (Result<Reloaded, ConfigError>, Option<News>) {
        replacing.free_what_nobody_asks();
        let texts = match files.read(&replacing.accepted) {
            Ok(texts) => texts,
            Err(error) => return self.refuse_files(Vec::new(), error, replacing),
        };
        if texts == replacing.accepted {
            // Files that are good again, or a policy that was refused when it was put by hand: nothing is newer than what runs.
            replacing.refused = None;
            let mut state = lock(&self.state);
            *state = std::mem::take(&mut *state).recovered();
            return (Ok(Reloaded::Unchanged), None);
        }
        // A parser that panics has refused them, and whoever looks at the state is to know.
        let compiled = catch_unwind(AssertUnwindSafe(|| compile(&texts)));
        let policy = match compiled
            .unwrap_or_else(|_| Err(ConfigError::new("policy files", self.name(), "cannot be compiled: it panics")))
        {
            Ok(policy) => policy,
            Err(error) => return self.refuse_files(texts, error, replacing),
        };
        replacing.accepted = texts;
        replacing.refused = None;
        (Ok(Reloaded::Replaced), Some(self.put(policy, replacing)))
    }

    /// Files that are not accepted are told of once for as long as they stay as they are.
    fn refuse_files(
        &self,
        texts: Vec<SourceText>,
        error: ConfigError,
        replacing: &mut Replacing<T>,
    ) -> (Result<Reloaded, ConfigError>, Option<News>) {
        let refused = Some(Refused { texts, why: described(&error).into() });
        let news = (replacing.refused != refused).then(|| self.refuse(&error));
        replacing.refused = refused;
        (Err(error), news)
    }

    fn put(&self, policy: T, replacing: &mut Replacing<T>) -> News {
        let version = policy.version().to_owned();
        let replaced = self.current.swap(Arc::new(policy));
        let warning = (replaced.version() == version).then(|| {
            format!(
                "{}: a newer policy has the version of the one before, {version:?}: records do not tell which of them decided",
                self.name()
            )
        });
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
        let event = Event::new(EventKind::PolicyReloaded, self.name());
        News { warning, error: None, event: event.with("generation", generation).with("version", version) }
    }

    fn refuse(&self, error: &ConfigError) -> News {
        let why = described(error);
        let news = News {
            warning: None,
            error: Some(format!("a newer policy is refused, the one that runs stays: {why}")),
            event: Event::new(EventKind::PolicyRefused, self.name()).with("reason", &*why),
        };
        let mut state = lock(&self.state);
        *state = std::mem::take(&mut *state).failed(why);
        news
    }

    /// What records call it: its first file.
    fn name(&self) -> String {
        self.origin.as_ref().map_or_else(|| "policy".to_owned(), |(files, _)| files.name())
    }

    /// Looks at the files again and again, until the policy is dropped. If the task goes before that, the state says so until
    /// another one is begun.
    ///
    /// # Errors
    /// If there are no files, the time is shorter than a second or longer than a day, or no tokio runtime with a timer runs here.
    pub(crate) fn watch(self: &Arc<Self>, every: Duration) -> Result<(), ConfigError> {
        let refuse = |problem: &str| ConfigError::new("policy watch", format!("{every:?}"), problem);
        if self.origin.is_none() {
            return Err(refuse("has no file to look at: the policy comes from a text"));
        }
        if every < Duration::from_secs(1) {
            return Err(refuse("must be at least one second"));
        }
        if every > LONGEST_WATCH {
            return Err(refuse("must be at most one day: what a newer policy takes away is allowed until it is read"));
        }
        let runtime = Handle::try_current().map_err(|_| refuse("needs a tokio runtime: call it inside one"))?;
        if !has_timer() {
            return Err(refuse("needs a tokio runtime with a timer: enable_time"));
        }
        let policy = Arc::downgrade(self);
        let mark = self.lookout.begin(self.name());
        runtime.spawn(async move {
            let _mark = mark;
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
mod tests;
