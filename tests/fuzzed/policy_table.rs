//! The input is a table of questions to a policy, which answers by the name of the action. The table passes exactly if a second reader
//! of the TOML finds that it expects these answers; each question is asked once, in order, as this reader finds it, and each failure
//! is told with a line of the table.

use std::sync::Mutex;

use async_trait::async_trait;
use portcullis::{
    Now,
    policy::{AccessQuery, PolicyBackend, StepUp, Verdict, test_table_text},
};
use toml::{Table, Value};

use super::memory::now;

/// What nobody was authenticated by.
const UNMET: &str = "no-such-acr-anywhere";

/// Remembers what it was asked, by subject, client, action and resource.
#[derive(Debug, Default)]
struct Policy(Mutex<Vec<Asked>>);

type Asked = (String, Option<String>, String, Option<(String, String)>, u64);

#[async_trait]
impl PolicyBackend for Policy {
    fn name(&self) -> &'static str {
        "by name"
    }

    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        let resource = query.resource().map(|resource| (resource.kind().to_owned(), resource.id().to_owned()));
        let client = query.client().map(|client| client.subject().to_owned());
        let asked = (query.subject().subject().to_owned(), client, query.action().to_owned(), resource);
        let (subject, client, action, resource) = asked;
        self.0.lock().unwrap().push((subject, client, action, resource, query.at().unix_seconds()));
        Now::Known(match answer(query.action()) {
            "allow" => Verdict::allow(),
            "deny" => Verdict::deny("by its name"),
            "step_up" => Verdict::step_up(StepUp::acr([UNMET]).unwrap()),
            _ => Verdict::cannot_decide("by its name"),
        })
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        match self.decide_now(query) {
            Now::Known(verdict) => verdict,
            Now::Wait => panic!("it never waits"),
        }
    }
}

/// What it answers to an action.
fn answer(action: &str) -> &'static str {
    ["allow", "deny", "step_up", "cannot_decide"][action.bytes().map(usize::from).sum::<usize>() % 4]
}

/// Panics if something of that does not hold. True if the table passes.
pub fn check(text: &str) -> bool {
    if text.contains(UNMET) {
        return false;
    }
    let policy = Policy::default();
    let result = now(test_table_text(&policy, "table", text));
    let asked = policy.0.into_inner().unwrap();
    let table: Option<Table> = text.parse().ok();
    let questions = table.as_ref().and_then(|table| table.get("question")).and_then(Value::as_array);
    let questions: Vec<&Value> = questions.into_iter().flatten().collect();
    match &result {
        Ok(passed) => {
            assert!(*passed > 0);
            assert_eq!((*passed, asked.len()), (questions.len(), questions.len()));
        }
        Err(error) => {
            let lines = text.matches('\n').count() + 1;
            assert!((1..=questions.len().max(1)).contains(&error.failures().len()), "{error}");
            for failure in error.failures() {
                let place = failure.strip_prefix("table:").unwrap();
                let line = place.split(':').next().unwrap().parse().ok();
                let whole = ["missing field `question`", " has no questions"].iter().any(|told| place.contains(told));
                assert!(line.map_or(whole, |line: usize| (1..=lines).contains(&line)), "{failure}");
            }
        }
    }
    let Some(table) = table.as_ref().filter(|_| !asked.is_empty()) else { return result.is_ok() };
    // Those that cannot be asked, of an unknown subject for instance, are left out.
    let mut rest = questions.iter();
    let mut others = 0;
    for asked in &asked {
        others += rest.by_ref().take_while(|question| read(table, question).as_ref() != Some(asked)).count();
    }
    assert!(others + asked.len() <= questions.len(), "asked what does not stand there, or twice");
    let as_expected = questions.iter().all(|question| {
        question["expect"].as_str() == Some(answer(question["action"].as_str().unwrap()))
            && ["rules", "obligations"]
                .iter()
                .all(|none| question.get(none).is_none_or(|list| list == &Value::Array(Vec::new())))
    });
    assert_eq!(result.is_ok(), as_expected && asked.len() == questions.len(), "{result:?}");
    result.is_ok()
}

fn read(table: &Table, question: &Value) -> Option<Asked> {
    let who = |who: &Value| {
        let subject = match who {
            Value::String(name) => table.get("subjects")?.get(name)?,
            here => here,
        };
        Some(subject.get("subject")?.as_str()?.to_owned())
    };
    let text = |value: &Value, name: &str| Some(value.get(name)?.as_str()?.to_owned());
    let resource = question.get("resource").map(|thing| Some((text(thing, "type")?, text(thing, "id")?)));
    let client = question.get("client").map(who);
    let time = question.get("time").map_or(Some(1_800_000_000), |time| u64::try_from(time.as_integer()?).ok())?;
    let resource = if let Some(resource) = resource { Some(resource?) } else { None };
    let client = if let Some(client) = client { Some(client?) } else { None };
    // In nanoseconds it ends in the year 2554.
    Some((
        who(question.get("subject")?)?,
        client,
        text(question, "action")?,
        resource,
        time.min(u64::MAX / 1_000_000_000),
    ))
}
