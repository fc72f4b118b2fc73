//! The compiled policy: one program, and machines that run it.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::{
        Arc, Mutex, TryLockError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use regorus::{
    Engine, Value,
    languages::rego::compiler::Compiler,
    rvm::{program::Program, vm::RegoVM},
    utils::limits::ExecutionTimerConfig,
};

use crate::{
    error::ConfigError,
    policy::{
        Basis,
        documents::fingerprint,
        live::SourceText,
        rego::{Kind, Settings},
    },
};

/// How many instructions pass between two looks at the clock.
const CLOCK_INTERVAL: NonZeroU32 = NonZeroU32::MIN.saturating_add(255);

/// A policy, ready to be asked by many threads at once.
pub(super) struct Compiled {
    pub(super) version: Arc<str>,
    pub(super) basis: Arc<Basis>,
    program: Arc<Program>,
    data: Value,
    limits: Limits,
    /// Machines that are ready. A question takes one that is free and never waits for one.
    machines: Box<[Mutex<RegoVM>]>,
}

#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) instructions: NonZeroUsize,
    pub(super) time: Duration,
    pub(super) lenient: bool,
}

impl Compiled {
    pub(super) fn new(texts: &[(Kind, SourceText)], settings: &Settings) -> Result<Self, ConfigError> {
        let mut engine = Engine::new();
        engine.set_strict_builtin_errors(!settings.limits.lenient);
        for (kind, SourceText { name, text }) in texts {
            match kind {
                Kind::Policy => {
                    engine.add_policy(name.clone(), text.clone()).map_err(|error| refused(&error, name))?;
                }
                Kind::Data => {
                    let value = serde_json::from_str::<serde_json::Value>(text).map_err(|error| {
                        ConfigError::new(format!("{name}:{}", error.line()), "the data document", error.to_string())
                    })?;
                    let add = engine.add_data(Value::from(value));
                    add.map_err(|error| ConfigError::new(name, "the data document", format!("is refused: {error}")))?;
                }
            }
        }
        let data = engine.get_data();
        let decision = &settings.decision;
        let policy = engine.compile_with_entrypoint(decision).map_err(|error| refused(&error, decision))?;
        let program = Compiler::compile_from_policy(&policy, &[decision]);
        let program = program
            .map_err(|error| ConfigError::new(&**decision, "the policy", format!("does not compile: {error}")))?;
        let version: Arc<str> = match &settings.version {
            Some(version) => Arc::clone(version),
            None => fingerprint(texts.iter().map(|(_, text)| text)).into(),
        };
        let basis = Arc::new(Basis::new().rule(Arc::clone(decision)).version(Arc::clone(&version)));
        let mut compiled = Self { version, basis, program, data, limits: settings.limits, machines: Box::default() };
        let machines = thread::available_parallelism().map_or(4, NonZeroUsize::get).min(64);
        compiled.machines = (0..machines).map(|_| compiled.machine().map(Mutex::new)).collect::<Result<_, _>>()?;
        Ok(compiled)
    }

    fn machine(&self) -> Result<RegoVM, ConfigError> {
        let mut machine = RegoVM::new();
        machine.load_program(Arc::clone(&self.program));
        machine.set_max_instructions(self.limits.instructions.get());
        machine.set_strict_builtin_errors(!self.limits.lenient);
        machine.set_execution_timer_config(Some(ExecutionTimerConfig {
            limit: self.limits.time,
            check_interval: CLOCK_INTERVAL,
        }));
        let taken = machine.set_data(self.data.clone());
        taken.map_err(|error| {
            ConfigError::new("data document", "its content", format!("contradicts a rule: {error}"))
        })?;
        Ok(machine)
    }

    /// What the decision is for this input.
    pub(super) fn evaluate(&self, input: Value) -> Result<Value, String> {
        let count = self.machines.len();
        let start = own_number();
        for position in 0..count {
            let Some(machine) = self.machines.get((start + position) % count) else { continue };
            let mut machine = match machine.try_lock() {
                Ok(machine) => machine,
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Poisoned(_)) => continue,
            };
            return run(&mut machine, input);
        }
        let mut machine = self.machine().map_err(|error| error.to_string())?;
        run(&mut machine, input)
    }
}

fn run(machine: &mut RegoVM, input: Value) -> Result<Value, String> {
    machine.set_input(input);
    let decision = machine.execute_entry_point_by_index(0);
    // Whom the question was about does not stay.
    machine.set_input(Value::Undefined);
    decision.map_err(|error| error.to_string())
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
    let reason = text.lines().find_map(|line| line.trim_start().strip_prefix("error: "));
    match (place, reason) {
        (Some(place), Some(reason)) => ConfigError::new(place, format!("{:?}", shown.unwrap_or_default()), reason),
        _ => ConfigError::new(name, "the policy", format!("does not compile: {}", text.trim())),
    }
}
