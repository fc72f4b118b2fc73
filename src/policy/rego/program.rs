//! The compiled policy, and engines that evaluate it.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use regorus::{Engine, Value, utils::limits::ExecutionTimerConfig};

use crate::{
    error::ConfigError,
    policy::{
        Basis,
        documents::fingerprint,
        files::SourceText,
        live::Versioned,
        nesting::{self, Language},
        rego::{Kind, Settings, glob, recursion, safety},
        unique::Unique,
    },
};

/// How many steps pass between two looks at the clock.
const CLOCK_INTERVAL: NonZeroU32 = NonZeroU32::MIN.saturating_add(255);

/// A policy, ready to be asked by many threads at once.
pub(super) struct Compiled {
    pub(super) version: Arc<str>,
    pub(super) basis: Arc<Basis>,
    decision: Arc<str>,
    /// What engines are copied from; a copy shares the policy and the data.
    prepared: Engine,
    /// Engines that are ready. A question takes one that is free and never waits for one.
    engines: Box<[Mutex<Engine>]>,
}

#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) time: Duration,
    pub(super) lenient: bool,
}

impl Versioned for Compiled {
    fn version(&self) -> &str {
        &self.version
    }
}

impl Compiled {
    pub(super) fn new(texts: &[(Kind, SourceText)], settings: &Settings) -> Result<Self, ConfigError> {
        let mut engine = Engine::new();
        engine.set_strict_builtin_errors(!settings.limits.lenient);
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit: settings.limits.time,
            check_interval: CLOCK_INTERVAL,
        });
        glob::register(&mut engine, settings.limits.lenient).map_err(|error| refused(&error, "glob.match"))?;
        for (kind, source @ SourceText { name, text }) in texts {
            match kind {
                Kind::Policy => {
                    nesting::check(source, Language::Rego)?;
                    engine.add_policy(name.clone(), text.clone()).map_err(|error| refused(&error, name))?;
                }
                Kind::Data => {
                    let Unique(value) = serde_json::from_str(text).map_err(|error| {
                        ConfigError::new(format!("{name}:{}", error.line()), "the data document", error.to_string())
                    })?;
                    let add = engine.add_data(Value::from(value));
                    add.map_err(|error| ConfigError::new(name, "the data document", format!("is refused: {error}")))?;
                }
            }
        }
        let decision = &settings.decision;
        let policy = engine.compile_with_entrypoint(decision).map_err(|error| refused(&error, decision))?;
        if !policy.get_rules().contains_key(&**decision) {
            return Err(ConfigError::new("decision", &**decision, "is no rule of the policy"));
        }
        let data = engine.get_data();
        if let Some(rule) = policy.get_rules().keys().find(|rule| is_in(&data, rule)) {
            return Err(ConfigError::new("data document", rule.as_str(), "is defined by a rule, too"));
        }
        recursion::refuse(policy.get_modules())?;
        safety::refuse(policy.get_modules(), settings.limits.lenient)?;
        // The interpreter looks functions up when it calls them, and sees a circle of rules when it goes round.
        let mut tried = engine.clone();
        tried.set_input(Value::new_object());
        if let Err(error) = tried.eval_rule(decision.to_string())
            && ["could not find function", "recursion detected"].iter().any(|bad| error.to_string().contains(bad))
        {
            return Err(refused(&error, decision));
        }
        let version: Arc<str> = match &settings.version {
            Some(version) => Arc::clone(version),
            None => fingerprint(texts.iter().map(|(_, text)| text)).into(),
        };
        let basis = Arc::new(Basis::new().rule(Arc::clone(decision)).version(Arc::clone(&version)));
        let count = thread::available_parallelism().map_or(4, NonZeroUsize::get).min(64);
        let engines = (0..count).map(|_| Mutex::new(engine.clone())).collect();
        Ok(Self { version, basis, decision: Arc::clone(decision), prepared: engine, engines })
    }

    /// What the decision is for this input.
    pub(super) fn evaluate(&self, input: Value) -> Result<Value, String> {
        let count = self.engines.len();
        let start = own_number();
        for position in 0..count {
            let Some(engine) = self.engines.get(start.wrapping_add(position) % count) else { continue };
            if let Ok(mut engine) = engine.try_lock() {
                return self.run(&mut engine, input);
            }
        }
        self.run(&mut self.prepared.clone(), input)
    }

    fn run(&self, engine: &mut Engine, input: Value) -> Result<Value, String> {
        engine.set_input(input);
        let decision =
            engine.eval_rule(self.decision.to_string()).map_err(|error| reason(&error.to_string()).to_owned());
        // Whom the question was about does not stay.
        match &decision {
            Ok(_) => engine.set_input(Value::Undefined),
            // Nor does what a `with` of it replaced: the interpreter puts that back only where it comes to its end.
            Err(_) => *engine = self.prepared.clone(),
        }
        decision
    }
}

/// Whether data stand where a rule does.
fn is_in(data: &Value, rule: &str) -> bool {
    let path = rule.split('.').skip(1);
    !matches!(path.fold(data, |value, name| &value[name]), Value::Undefined)
}

/// A number for each thread, so that threads take different machines.
fn own_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    OWN.with(|own| *own)
}

/// The error with file, line and reason, which the compiler tells in a drawing over several lines:
/// `--> file:line:column`, the line itself, and at last `error: reason`.
fn refused(error: &impl ToString, name: &str) -> ConfigError {
    let text = error.to_string();
    let place = text.lines().find_map(|line| line.trim_start().strip_prefix("--> "));
    let shown = text.lines().find_map(|line| {
        let (number, code) = line.split_once('|')?;
        (!number.trim().is_empty() && number.trim().bytes().all(|byte| byte.is_ascii_digit())).then(|| code.trim())
    });
    match place {
        Some(place) => ConfigError::new(place, format!("{:?}", shown.unwrap_or_default()), reason(&text)),
        _ => ConfigError::new(name, "the policy", format!("does not compile: {}", text.trim())),
    }
}

/// The last line of such a drawing, or all of another text.
fn reason(text: &str) -> &str {
    text.lines().find_map(|line| line.trim_start().strip_prefix("error: ")).unwrap_or_else(|| text.trim())
}
