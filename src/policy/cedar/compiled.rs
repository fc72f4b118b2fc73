//! A question, answered: entities and request are built, the policies that can apply are found and evaluated.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use cedar_policy::{
    Authorizer, Context, Effect, Entities, Entity, EntityId, EntityTypeName, EntityUid, Policy, PolicyId, Request,
    RequestValidationError, Schema,
};
use serde_json::{Map, Value, json};

use crate::policy::{
    AccessQuery, Basis, Decision, Directive, StepUp, Verdict,
    cedar::{
        compile::whole,
        index::{Place, ScopeIndex},
        mapping::{Mapping, reference, uid_of},
        slices::Slices,
        source::{CedarEntity, CedarUid},
    },
    live::Versioned,
};

/// A policy set that runs.
pub(super) struct Compiled {
    pub(super) version: Arc<str>,
    pub(super) schema: Schema,
    /// The schema without actions.
    pub(super) types: Schema,
    /// The types that an entity without attributes does not fit.
    pub(super) demanding: HashSet<EntityTypeName>,
    pub(super) mapping: Mapping,
    pub(super) index: ScopeIndex,
    pub(super) rules: Vec<Rule>,
    pub(super) positions: HashMap<PolicyId, u32>,
    pub(super) slices: Slices,
    pub(super) entities: Entities,
    /// Which entities an entity's attributes name.
    pub(super) references: HashMap<EntityUid, Vec<EntityUid>>,
    pub(super) actions: Entities,
}

/// A policy of the set.
pub(super) struct Rule {
    pub(super) id: Arc<str>,
    pub(super) policy: Policy,
    pub(super) obligations: Vec<Directive>,
    pub(super) advice: Vec<Directive>,
    /// What would help where it forbids.
    pub(super) step_up: Option<StepUp>,
    /// Entities that it names.
    pub(super) literals: Vec<EntityUid>,
}

/// Why there is no evaluation.
pub(super) enum Unasked {
    /// The policy does not know what the question is about: nothing allows it.
    Unknown(String),
    /// The question cannot be put as the schema demands.
    Broken(String),
}

use Unasked::{Broken, Unknown};

/// What a question is about, in Cedar's terms.
pub(super) struct Subjects {
    pub(super) principal: EntityUid,
    pub(super) action: EntityUid,
    pub(super) resource: EntityUid,
}

impl Subjects {
    pub(super) fn wanted(&self) -> [CedarUid; 2] {
        [&self.principal, &self.resource].map(|uid| CedarUid::new(uid.type_name().to_string(), uid.id().unescaped()))
    }
}

/// A request that is ready, and the policies whose scope it matches.
pub(super) struct Case {
    request: Request,
    entities: Entities,
    matching: Vec<u32>,
}

impl Versioned for Compiled {
    fn version(&self) -> &str {
        &self.version
    }
}

impl Compiled {
    pub(super) fn references_in(entities: &Entities) -> HashMap<EntityUid, Vec<EntityUid>> {
        let of = |entity: &Entity| {
            let mut found = Vec::new();
            if let Ok(json) = entity.to_json_value() {
                named_in(&json, &mut found);
            }
            (entity.uid(), found)
        };
        entities.iter().map(of).filter(|(_, found)| !found.is_empty()).collect()
    }

    pub(super) fn subjects(&self, query: &AccessQuery<'_>) -> Result<Subjects, Unasked> {
        let action = self.mapping.action(query.action());
        let action = action.ok_or_else(|| Unknown(format!("the schema has no action {:?}", query.action())))?;
        let subject = query.subject();
        let of = self.mapping.principal_type(subject.kind());
        let of = of.ok_or_else(|| Unknown(format!("the schema has no type for a {}", subject.kind().as_str())))?;
        let principal = self.mapping.principal_uid(&of.name, subject.issuer(), subject.subject());
        let principal = principal.ok_or_else(|| Unknown("the principal is of another issuer".to_owned()))?;
        let resource = match (query.resource(), &self.mapping.no_resource) {
            (Some(resource), _) => {
                let of = self.mapping.resource_type(resource.kind());
                let of = of.ok_or_else(|| Unknown(format!("the schema has no type {:?}", resource.kind())))?;
                EntityUid::from_type_name_and_id(of.name.clone(), EntityId::new(resource.id()))
            }
            (None, Some(uid)) => uid.clone(),
            (None, None) => return Err(Unknown("the question names no thing".to_owned())),
        };
        Ok(Subjects { principal, action: action.uid.clone(), resource })
    }

    pub(super) fn case(
        &self,
        query: &AccessQuery<'_>,
        subjects: Subjects,
        given: Vec<CedarEntity>,
    ) -> Result<Case, Unasked> {
        let mut slice = Slice::new(self);
        for entity in given {
            let uid = uid_of(entity.uid().kind(), entity.uid().id()).map_err(Broken)?;
            let part = slice.part(uid);
            part.attributes.extend(entity.attributes().iter().map(|(name, value)| (name.to_owned(), value.clone())));
            for parent in entity.parents() {
                part.parents.push(uid_of(parent.kind(), parent.id()).map_err(Broken)?);
            }
        }
        self.describe(query, &subjects, &mut slice)?;

        let action = self.mapping.action(query.action());
        let action = action.ok_or_else(|| Unknown(format!("the schema has no action {:?}", query.action())))?;
        let context = if action.context.is_empty() {
            Context::empty()
        } else {
            let context = Value::Object(self.mapping.context(action, query));
            slice.wants(&context);
            let typed = Context::from_json_value(context, Some((&self.schema, &action.uid)));
            typed.map_err(|error| Broken(format!("the context does not fit the schema: {}", whole(&error))))?
        };
        let Subjects { principal, action, resource } = subjects;
        let mut entities = slice.build(&action)?;
        let matching = {
            let [of_principal, of_action, of_resource] = [&principal, &action, &resource]
                .map(|uid| entities.ancestors(uid).map(Iterator::collect).unwrap_or_default());
            let place = |uid, ancestors| Place { uid, ancestors };
            let of_principal: Vec<&EntityUid> = of_principal;
            self.index.matching(
                place(&principal, &of_principal),
                place(&action, &of_action),
                place(&resource, &of_resource),
            )
        };
        // Entities that a policy names are looked into, too.
        let literals = matching.iter().filter_map(|position| self.rule(*position)).flat_map(|rule| &rule.literals);
        let missing: HashSet<&EntityUid> =
            literals.filter(|uid| entities.get(uid).is_none() && self.entities.get(uid).is_some()).collect();
        if !missing.is_empty() {
            let mut more = Slice::new(self);
            missing.into_iter().for_each(|uid| more.wanted.push(uid.clone()));
            let more = more.entities()?.into_iter().filter(|entity| entities.get(&entity.uid()).is_none());
            let more: Vec<Entity> = more.collect();
            entities = entities.add_entities(more, None).map_err(|error| Broken(whole(&error)))?;
        }
        let request = Request::new(principal, action, resource, context, Some(&self.schema));
        let request = request.map_err(|error| match &error {
            RequestValidationError::InvalidContext(_) => Broken(format!("the context does not fit: {}", whole(&error))),
            // An action that is for other types is allowed by no policy.
            _ => Unknown(whole(&error)),
        })?;
        Ok(Case { request, entities, matching })
    }

    /// What the question itself tells of principal and resource.
    fn describe(&self, query: &AccessQuery<'_>, subjects: &Subjects, slice: &mut Slice<'_>) -> Result<(), Unasked> {
        let subject = query.subject();
        if let Some(of) = self.mapping.principal_type(subject.kind()) {
            let attributes = self.mapping.principal_attributes(of, subject);
            let attributes = attributes.map_err(|error| Broken(format!("the claims do not parse: {error}")))?;
            let roles = of.roles.iter().flat_map(|role| {
                subject.roles().map(|name| EntityUid::from_type_name_and_id(role.clone(), EntityId::new(name)))
            });
            let part = slice.part(subjects.principal.clone());
            part.of_credential = attributes;
            part.parents.extend(roles);
        }
        let part = slice.part(subjects.resource.clone());
        if let Some(resource) = query.resource()
            && let Some(of) = self.mapping.resource_type(resource.kind())
        {
            part.of_question = self.mapping.resource_attributes(of, resource).map_err(Broken)?;
            part.asks = subjects.resource == subjects.principal;
        }
        Ok(())
    }

    fn rule(&self, position: u32) -> Option<&Rule> {
        self.rules.get(usize::try_from(position).ok()?)
    }

    pub(super) fn verdict(&self, case: &Case) -> Verdict {
        if case.matching.is_empty() {
            let basis = Basis::new().version(Arc::clone(&self.version)).reason("no policy applies");
            return Verdict::from_basis(Decision::Deny, Arc::new(basis));
        }
        let undecided = |problem: String| Verdict::cannot_decide(problem).of_version(Arc::clone(&self.version));
        let policies = self.slices.get(&case.matching, |position| Some(&self.rule(position)?.policy));
        let policies = match policies {
            Ok(policies) => policies,
            Err(problem) => return undecided(problem),
        };
        let response = Authorizer::new().is_authorized(&case.request, &policies, &case.entities);

        let mut decided: Vec<u32> =
            response.diagnostics().reason().filter_map(|id| self.positions.get(id).copied()).collect();
        decided.sort_unstable();
        let decided: Vec<&Rule> = decided.into_iter().filter_map(|position| self.rule(position)).collect();
        let mut basis = Basis::new().version(Arc::clone(&self.version));
        for rule in &decided {
            basis = basis.rule(Arc::clone(&rule.id));
        }
        let mut errors: Vec<String> = response.diagnostics().errors().map(|error| whole(error)).collect();
        errors.sort_unstable();

        let forbidden = decided.iter().any(|rule| rule.policy.effect() == Effect::Forbid);
        // Cedar leaves a policy that fails out. Whether it would have forbidden is not known, so nothing is allowed; and it
        // may have permitted, so nothing is denied either, unless another one forbids.
        if !errors.is_empty() && !forbidden {
            return errors.into_iter().fold(undecided("a policy could not be evaluated".to_owned()), Verdict::because);
        }
        let allowed = !forbidden && response.decision() == cedar_policy::Decision::Allow;
        let decision = if allowed { Decision::Allow } else { Decision::Deny };
        if decided.is_empty() {
            basis = basis.reason("no policy permits it");
        }
        let mut verdict = Verdict::from_basis(decision, Arc::new(basis));
        if forbidden
            && errors.is_empty()
            && let Some(demand) = self.demand(case, &decided)
        {
            verdict = verdict.demanding(demand);
        }
        if allowed {
            for rule in decided {
                verdict = rule.obligations.iter().cloned().fold(verdict, Verdict::obliging);
                verdict = rule.advice.iter().cloned().fold(verdict, Verdict::advising);
            }
        }
        verdict
    }

    /// What would help against the policies that forbid: each says it, and without them it would be allowed.
    fn demand(&self, case: &Case, forbidding: &[&Rule]) -> Option<StepUp> {
        let demands = forbidding.iter().map(|rule| rule.step_up.clone()).collect::<Option<Vec<_>>>()?;
        let demand = demands.into_iter().reduce(|demand, other| demand.and(&other))?;
        let forbids =
            |position: u32| self.rule(position).is_none_or(|rule| forbidding.iter().any(|other| other.id == rule.id));
        let others: Vec<u32> = case.matching.iter().copied().filter(|position| !forbids(*position)).collect();
        let policies = self.slices.get(&others, |position| Some(&self.rule(position)?.policy)).ok()?;
        let response = Authorizer::new().is_authorized(&case.request, &policies, &case.entities);
        let allowed = response.decision() == cedar_policy::Decision::Allow;
        (allowed && response.diagnostics().errors().next().is_none()).then_some(demand)
    }

    /// Each policy whose scope matches, alone.
    pub(super) fn steps(&self, case: &Case) -> Vec<String> {
        let of = |position: &u32| {
            let rule = self.rule(*position)?;
            let policies = self.slices.get(&[*position], |position| Some(&self.rule(position)?.policy)).ok()?;
            let response = Authorizer::new().is_authorized(&case.request, &policies, &case.entities);
            let effect = match rule.policy.effect() {
                Effect::Permit => "permit",
                Effect::Forbid => "forbid",
            };
            let problem = response.diagnostics().errors().next().map(|error| format!("fails: {}", whole(error)));
            let applies = response.diagnostics().reason().next().is_some();
            let result = problem.unwrap_or_else(|| if applies { "applies" } else { "does not apply" }.to_owned());
            Some(format!("{effect} {}: {result}", rule.id))
        };
        let mut steps = vec![format!("{} of {} policies match by scope", case.matching.len(), self.rules.len())];
        steps.extend(case.matching.iter().filter_map(of));
        steps
    }
}

/// The entities that a request can reach: those that it is about, what they are in, and what their attributes name.
struct Slice<'c> {
    compiled: &'c Compiled,
    parts: HashMap<EntityUid, Part>,
    wanted: Vec<EntityUid>,
}

/// What is known of an entity besides what stands in the files.
#[derive(Default)]
struct Part {
    attributes: Map<String, Value>,
    parents: Vec<EntityUid>,
    /// What the handler says of its thing is the newest; but what it is by may be the word of a client, in a path.
    of_question: Map<String, Value>,
    /// What the application keeps of a principal, in files too, outweighs what its credential says.
    of_credential: Map<String, Value>,
    /// Whether it is the thing and who asks: what the question tells of the one would be told of the other.
    asks: bool,
}

impl<'c> Slice<'c> {
    fn new(compiled: &'c Compiled) -> Self {
        Self { compiled, parts: HashMap::new(), wanted: Vec::new() }
    }

    fn part(&mut self, uid: EntityUid) -> &mut Part {
        self.parts.entry(uid).or_default()
    }

    /// Adds the entities that a value names.
    fn wants(&mut self, value: &Value) {
        named_in(value, &mut self.wanted);
    }

    fn entities(mut self) -> Result<Vec<Entity>, Unasked> {
        let mut built: HashMap<EntityUid, Entity> = HashMap::new();
        for (uid, part) in std::mem::take(&mut self.parts) {
            let entity = self.entity(&uid, part)?;
            built.insert(uid, entity);
        }
        let compiled = self.compiled;
        for uid in built.keys() {
            self.wanted.extend(compiled.references.get(uid).into_iter().flatten().cloned());
        }
        while let Some(uid) = self.wanted.pop() {
            if built.contains_key(&uid) {
                continue;
            }
            if let Some(entity) = compiled.entities.get(&uid) {
                self.wanted.extend(compiled.references.get(&uid).into_iter().flatten().cloned());
                built.insert(uid, entity.clone());
            }
        }
        Ok(built.into_values().collect())
    }

    /// An entity of the question, with what the files say of it.
    fn entity(&mut self, uid: &EntityUid, part: Part) -> Result<Entity, Unasked> {
        let Part { attributes, parents, of_question, of_credential, asks } = part;
        // The groups are looked into for the groups that they are in.
        self.wanted.extend(parents.iter().cloned());
        let kept = self.compiled.entities.get(uid);
        let tells_nothing = attributes.is_empty() && of_question.is_empty() && of_credential.is_empty();
        // Of a type that demands attributes it is checked: `has` on one would be false, and that is not known.
        if tells_nothing && kept.is_none() && !self.compiled.demanding.contains(uid.type_name()) {
            return Ok(Entity::new_no_attrs(uid.clone(), parents.into_iter().collect()));
        }
        let mut json = match kept {
            Some(kept) if tells_nothing && parents.is_empty() => return Ok(kept.clone()),
            Some(kept) => kept.to_json_value().map_err(|error| Broken(whole(&error)))?,
            None => json!({ "uid": reference(uid), "attrs": {}, "parents": [] }),
        };
        let mut without_question = None;
        if let Some(Value::Object(kept)) = json.get_mut("attrs") {
            kept.extend(attributes);
            if let Some(name) = WHOSE.iter().find(|name| differ(kept.get(**name), of_question.get(**name))) {
                return Err(Broken(format!("the question tells another {name} of {uid} than the source or the files")));
            }
            if asks && !of_question.is_empty() {
                let names: Vec<String> = of_question.keys().cloned().collect();
                without_question = Some((names, with_credential(kept.clone(), of_credential.clone())));
            }
            kept.extend(of_question);
            *kept = with_credential(std::mem::take(kept), of_credential);
            kept.values().for_each(|value| named_in(value, &mut self.wanted));
        }
        if let Some(Value::Array(kept)) = json.get_mut("parents") {
            kept.extend(parents.iter().map(reference));
        }
        let entity = self.checked(json)?;
        if let Some((names, attributes)) = without_question {
            let known = self.checked(json!({ "uid": reference(uid), "attrs": attributes, "parents": [] }))?;
            let value = |entity: &Entity, name: &str| entity.attr(name).and_then(Result::ok);
            let is_told = |name: &&String| value(&known, name).is_none() || value(&known, name) != value(&entity, name);
            if let Some(name) = names.iter().find(is_told) {
                return Err(Broken(format!(
                    "the question tells another {name} of {uid}, who asks, than is known of them"
                )));
            }
        }
        Ok(entity)
    }

    fn checked(&self, json: Value) -> Result<Entity, Unasked> {
        Entity::from_json_value(json, Some(&self.compiled.types))
            .map_err(|error| Broken(format!("an entity does not fit the schema: {}", whole(&error))))
    }

    /// All of them, with the action and the groups that it is in.
    fn build(self, action: &EntityUid) -> Result<Entities, Unasked> {
        let actions = &self.compiled.actions;
        let groups = actions.ancestors(action).into_iter().flatten();
        let actions: Vec<Entity> =
            std::iter::once(action).chain(groups).filter_map(|uid| actions.get(uid)).cloned().collect();
        let entities = self.entities()?.into_iter().chain(actions);
        Entities::from_entities(entities, None).map_err(|error| Broken(whole(&error)))
    }
}

/// What the credential says counts where nobody else says it.
fn with_credential(mut kept: Map<String, Value>, of_credential: Map<String, Value>) -> Map<String, Value> {
    for (name, value) in of_credential {
        kept.entry(name).or_insert(value);
    }
    kept
}

/// What says whose a thing is. A path names the tenant that the client likes.
const WHOSE: [&str; 2] = ["tenant", "owner"];

/// Whether both are told, and not the same. An entity is written in two ways.
pub(super) fn differ(kept: Option<&Value>, asked: Option<&Value>) -> bool {
    let plain = |value: &Value| value.get("__entity").unwrap_or(value).clone();
    kept.zip(asked).is_some_and(|(kept, asked)| plain(kept) != plain(asked))
}

/// All that looks like the name of an entity. What is none is looked for and not found.
fn named_in(value: &Value, found: &mut Vec<EntityUid>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| named_in(item, found)),
        Value::Object(fields) => {
            if let (Some(Value::String(kind)), Some(Value::String(id))) = (fields.get("type"), fields.get("id"))
                && let Ok(uid) = uid_of(kind, id)
            {
                found.push(uid);
            }
            fields.values().for_each(|field| named_in(field, found));
        }
        _ => {}
    }
}
