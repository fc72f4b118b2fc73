//! One call of the script for many draws.

use redis::{RedisError, RedisResult, Value, aio::MultiplexedConnection};

use super::{
    ask::{self, Answer, Ask, Failure},
    line::Shared,
    state::Tally,
};
use crate::redis::is_away;

pub(super) const SCRIPT: &str = include_str!("take.lua");

/// One for each draw, in their order.
pub(super) struct Answers {
    pub(super) of_asks: Vec<Result<Answer, Failure>>,
    pub(super) complaint: Option<String>,
}

/// Asks all of it, by the script's hash first.
pub(super) async fn call(
    shared: &Shared,
    hash: &str,
    commands: &mut MultiplexedConnection,
    asks: &[Ask],
) -> Result<Answers, RedisError> {
    let mut answers = Answers { of_asks: vec![Err(Failure::Corrupt); asks.len()], complaint: None };
    let mut calls = ask::calls(asks, shared.in_cluster);
    let outlives = u64::try_from(shared.outlives.as_millis()).unwrap_or(u64::MAX);
    for (command, text) in [("EVALSHA", hash), ("EVAL", SCRIPT)] {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for call in &calls {
            pipeline.add_command(call.command(command, text, asks, outlives));
        }
        Tally::add(&shared.tally.calls, calls.len());
        let results: Vec<RedisResult<Value>> = pipeline.query_async(commands).await?;
        let mut again = Vec::new();
        for (call, result) in std::mem::take(&mut calls).into_iter().zip(results) {
            match result.map(|value| ask::answers(&value, call.asks.len())) {
                Ok(Some(told)) => {
                    for (index, told) in call.asks.iter().zip(told) {
                        if told == Err(Failure::Corrupt) {
                            let held = asks.get(*index).and_then(|ask| ask.counts.first());
                            answers.complaint = held.map(|count| format!("{:?} or its like is no count", count.name));
                        }
                        if let Some(answer) = answers.of_asks.get_mut(*index) {
                            *answer = told;
                        }
                    }
                }
                Ok(None) => answers.complaint = Some("an answer of another shape".into()),
                Err(error) if error.code() == Some("NOSCRIPT") => again.push(call),
                Err(error) if is_away(&error) => return Err(error),
                Err(error) => answers.complaint = Some(error.to_string()),
            }
        }
        if again.is_empty() {
            break;
        }
        calls = again;
    }
    Ok(answers)
}
