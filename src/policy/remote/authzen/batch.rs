use std::collections::HashMap;

use serde_json::{Value, json};

use crate::policy::remote::question::Fields;

/// The most questions of one request.
const MOST: usize = 100;

/// Questions of one request, and where their verdicts belong.
///
/// They have subject and context in common, and each of their resources is described in one way: there are decision points that
/// know subjects and resources of a request by type and id alone, and answer all questions by the properties of the first.
pub(super) struct Batch {
    pub(super) indices: Vec<usize>,
    subject: Option<Value>,
    context: Option<Value>,
    resources: HashMap<(String, String), Value>,
    evaluations: Vec<Value>,
}

impl Batch {
    pub(super) fn of(index: usize, mut question: Fields) -> Self {
        let (subject, context) = (question.remove("subject"), question.remove("context"));
        let mut batch =
            Self { indices: Vec::new(), subject, context, resources: HashMap::new(), evaluations: Vec::new() };
        batch.push(index, question);
        batch
    }

    pub(super) fn takes(&self, question: &Fields) -> bool {
        let resource = question.get("resource");
        let known = resource.and_then(|resource| self.resources.get(&name_of(resource)));
        self.indices.len() < MOST
            && question.get("subject") == self.subject.as_ref()
            && question.get("context") == self.context.as_ref()
            && (known.is_none() || known == resource)
    }

    pub(super) fn push(&mut self, index: usize, question: Fields) {
        let own = |(name, _): &(String, Value)| name == "action" || name == "resource";
        let question: Fields = question.into_iter().filter(own).collect();
        if let Some(resource) = question.get("resource") {
            self.resources.insert(name_of(resource), resource.clone());
        }
        self.indices.push(index);
        self.evaluations.push(question.into());
    }

    pub(super) fn body(&self) -> Value {
        json!({
            "subject": self.subject,
            "context": self.context,
            "evaluations": self.evaluations,
            "options": { "evaluations_semantic": "execute_all" },
        })
    }
}

/// Type and id.
fn name_of(resource: &Value) -> (String, String) {
    let text = |name| resource.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    (text("type"), text("id"))
}
