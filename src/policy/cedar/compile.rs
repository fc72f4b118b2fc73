//! From texts to a policy set that is checked against its schema, with an index.

use std::{
    collections::{HashMap, HashSet},
    str::FromStr,
    sync::Arc,
};

use cedar_policy::{
    Effect, Entities, Entity, EntityId, EntityTypeName, EntityUid, Policy, PolicyId, PolicySet, Schema, SchemaFragment,
    SlotId, Template, ValidationMode, Validator,
};
use miette::Diagnostic;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use crate::{
    error::ConfigError,
    log,
    policy::{
        Directive, StepUp,
        cedar::{
            builder::{Kind, Settings},
            compiled::{Compiled, Rule},
            index::ScopeIndex,
            mapping::{Mapping, reference},
            shape::Namespaces,
            slices::Slices,
        },
        documents::{fingerprint, line_of},
        files::SourceText,
        nesting::{self, Language},
    },
    strict::Strict,
};

/// The documents of one kind.
fn of(kind: Kind, texts: &[(Kind, SourceText)]) -> impl Iterator<Item = &SourceText> {
    texts.iter().filter(move |(each, _)| *each == kind).map(|(_, text)| text)
}

pub(super) fn compile(texts: &[(Kind, SourceText)], settings: &Settings) -> Result<Compiled, ConfigError> {
    let (schema, namespaces) = schema(of(Kind::Schema, texts))?;
    let mut rules = Rules::default();
    for text in of(Kind::Policies, texts) {
        rules.add_text(text)?;
    }
    for text in of(Kind::Links, texts) {
        rules.add_links(text)?;
    }
    if rules.set.is_empty() {
        return Err(ConfigError::new("policies", "none", "are there"));
    }
    rules.validate(&schema)?;

    let types = Schema::from_json_value(namespaces.without_actions())
        .map_err(|error| ConfigError::new("schema", "its types", format!("cannot stand alone: {error}")))?;
    let entities = entities(of(Kind::Entities, texts), &types)?;
    let actions = schema.action_entities();
    let actions = actions.map_err(|error| ConfigError::new("schema", "its actions", error.to_string()))?;
    let mapping = Mapping::new(settings, &schema, &namespaces)?;

    let mut index = ScopeIndex::default();
    let mut list = Vec::new();
    for (position, policy) in (0..).zip(rules.set.policies()) {
        index.insert(position, policy);
        list.push(rules.rule(policy)?);
    }
    let positions = list.iter().zip(0..).map(|(rule, position)| (rule.policy.id().clone(), position)).collect();
    let version = match &settings.version {
        Some(version) => Arc::clone(version),
        None => fingerprint(texts.iter().map(|(_, text)| text)).into(),
    };
    Ok(Compiled {
        version,
        schema,
        demanding: demanding(&types, &namespaces),
        types,
        mapping,
        index,
        rules: list,
        positions,
        slices: Slices::new(rules.set),
        references: Compiled::references_in(&entities),
        entities,
        actions,
    })
}

/// The types that demand an attribute.
fn demanding(types: &Schema, namespaces: &Namespaces) -> HashSet<EntityTypeName> {
    let fits = |name: &EntityTypeName| {
        let uid = EntityUid::from_type_name_and_id(name.clone(), EntityId::new(""));
        let bare = json!({ "uid": reference(&uid), "attrs": {}, "parents": [] });
        Entity::from_json_value(bare, Some(types)).is_ok()
    };
    // What has none, and a list of ids in their place, is looked at when the request is made.
    let has_attributes = |name: &EntityTypeName| !namespaces.of_entity(&name.to_string()).is_empty();
    types.entity_types().filter(|name| has_attributes(name) && !fits(name)).cloned().collect()
}

fn schema<'t>(texts: impl Iterator<Item = &'t SourceText>) -> Result<(Schema, Namespaces), ConfigError> {
    let mut namespaces = Namespaces::default();
    let mut fragments = Vec::new();
    for source @ SourceText { name, text } in texts {
        nesting::check(source, Language::CedarSchema)?;
        let fragment = if text.trim_start().starts_with('{') {
            SchemaFragment::from_json_str(text).map_err(|error| at(source, &error, "the schema"))?
        } else {
            let parsed = SchemaFragment::from_cedarschema_str(text);
            let (fragment, warnings) = parsed.map_err(|error| at(source, &error, "the schema"))?;
            warnings.for_each(|warning| log::warn(&format!("{name}: {warning}")));
            fragment
        };
        let json = fragment.clone().to_json_value().map_err(|error| at(source, &error, "the schema"))?;
        namespaces.add(json);
        fragments.push(fragment);
    }
    if fragments.is_empty() {
        return Err(ConfigError::new("schema", "none", "is there: policies are checked against one"));
    }
    let schema = Schema::from_schema_fragments(fragments);
    Ok((schema.map_err(|error| ConfigError::new("schema", "its parts", whole(&error)))?, namespaces))
}

/// Policies under their names, and where each of them stands.
#[derive(Default)]
struct Rules {
    set: PolicySet,
    /// The text and the line of a policy or a template.
    places: HashMap<PolicyId, (SourceText, usize)>,
}

impl Rules {
    fn add_text(&mut self, source: &SourceText) -> Result<(), ConfigError> {
        nesting::check(source, Language::Cedar)?;
        let parsed = PolicySet::from_str(&source.text).map_err(|error| at(source, &error, "the policy"))?;
        // Each document, not all of them together: of permits and forbids in two files, the permits would run alone.
        if parsed.is_empty() {
            let problem = "are in it: an empty document is taken for half of one";
            return Err(ConfigError::new(&source.name, "no policies", problem));
        }
        // Cedar numbers them in the order of the text, across policies and templates.
        let number = |id: &PolicyId| {
            let id: &str = id.as_ref();
            id.trim_start_matches(|c: char| !c.is_ascii_digit()).parse::<usize>()
        };
        let policies = parsed.policies().map(|policy| (number(policy.id()), Statement::Policy(policy)));
        let templates = parsed.templates().map(|template| (number(template.id()), Statement::Template(template)));
        let mut statements: Vec<_> = policies.chain(templates).collect();
        statements.sort_by_key(|(number, _)| number.clone().unwrap_or(usize::MAX));

        let mut cursor = 0;
        for (_, statement) in statements {
            let written = statement.text().unwrap_or_default();
            let found = source.text.get(cursor..).and_then(|rest| rest.find(&*written)).unwrap_or(0);
            cursor += found;
            let line = line_of(&source.text, cursor);
            cursor += written.len();
            let id = statement.id_annotation().map_or_else(|| self.anonymous(&source.name, line), PolicyId::new);
            let refused =
                |problem: String| ConfigError::new(format!("{}:{line}", source.name), format!("{id:?}"), problem);
            if AsRef::<str>::as_ref(&id).is_empty() {
                return Err(refused("must not be an empty @id".to_owned()));
            }
            if let Some((other, line)) = self.places.get(&id) {
                return Err(refused(format!("is the @id of the policy at {}:{line}, too", other.name)));
            }
            match statement {
                Statement::Policy(policy) => self.set.add(policy.new_id(id.clone())),
                Statement::Template(template) => self.set.add_template(template.new_id(id.clone())),
            }
            .map_err(|error| refused(format!("is refused: {error}")))?;
            self.places.insert(id, (source.clone(), line));
        }
        Ok(())
    }

    /// A name for a policy that has none: where it stands.
    fn anonymous(&self, name: &str, line: usize) -> PolicyId {
        let base = PolicyId::new(format!("{name}:{line}"));
        let later = (2_usize..).map(|count| PolicyId::new(format!("{name}:{line}.{count}")));
        std::iter::once(base)
            .chain(later)
            .find(|id| !self.places.contains_key(id))
            .unwrap_or_else(|| PolicyId::new(name))
    }

    fn add_links(&mut self, source: &SourceText) -> Result<(), ConfigError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Link {
            template_id: String,
            link_id: String,
            args: HashMap<String, String>,
        }
        for (raw, start) in elements(source, "links")? {
            let line = line_of(&source.text, start);
            let place = format!("{}:{line}", source.name);
            let refuse = |value: &str, problem: String| ConfigError::new(place.clone(), format!("{value:?}"), problem);
            let Strict(link): Strict<Link> =
                serde_json::from_str(raw).map_err(|error| refuse("link", format!("is refused: {error}")))?;
            let mut values = HashMap::new();
            for (slot, uid) in &link.args {
                let name = match slot.as_str() {
                    "?principal" => SlotId::principal(),
                    "?resource" => SlotId::resource(),
                    other => return Err(refuse(other, "must be ?principal or ?resource".to_owned())),
                };
                let uid = EntityUid::from_str(uid);
                values.insert(name, uid.map_err(|error| refuse(slot, format!("names no entity: {error}")))?);
            }
            let id = PolicyId::new(&link.link_id);
            if self.places.contains_key(&id) {
                return Err(refuse(&link.link_id, "is the name of another policy, too".to_owned()));
            }
            let linked = self.set.link(PolicyId::new(&link.template_id), id.clone(), values);
            linked.map_err(|error| refuse(&link.link_id, format!("cannot be linked: {}", whole(&error))))?;
            self.places.insert(id, (source.clone(), line));
        }
        Ok(())
    }

    fn validate(&self, schema: &Schema) -> Result<(), ConfigError> {
        let result = Validator::new(schema.clone()).validate(&self.set, ValidationMode::default());
        if let Some(error) = result.validation_errors().next() {
            let id = error.policy_id();
            return Err(match self.places.get(id) {
                Some((source, line)) => {
                    let line = offset(error).map_or(*line, |offset| line_of(&source.text, offset));
                    ConfigError::new(format!("{}:{line}", source.name), format!("policy {id}"), whole(error))
                }
                None => ConfigError::new("policies", format!("policy {id}"), whole(error)),
            });
        }
        for warning in result.validation_warnings() {
            log::warn(&format!("a policy may not mean what it says: {warning}"));
        }
        Ok(())
    }

    fn rule(&self, policy: &Policy) -> Result<Rule, ConfigError> {
        let refuse = |key: &str, problem: String| {
            let place = self.places.get(policy.id());
            let place = place.map_or_else(|| "policies".to_owned(), |(text, line)| format!("{}:{line}", text.name));
            ConfigError::new(place, format!("@{key} of {}", policy.id()), problem)
        };
        for (key, _) in policy.annotations() {
            if let Some(meant) = READ.into_iter().find(|read| *read != key && plain(read) == plain(key)) {
                return Err(refuse(key, format!("means nothing; did you mean @{meant}?")));
            }
        }
        let directives = |key: &str| {
            let Some(text) = policy.annotation(key) else { return Ok(Vec::new()) };
            if policy.effect() == Effect::Forbid {
                return Err(refuse(key, "stands on a forbid: only an allow is told with it".to_owned()));
            }
            let names = text.split(',').map(str::trim);
            if names.clone().any(str::is_empty) {
                return Err(refuse(key, format!("{text:?} has an empty name")));
            }
            Ok(names.map(|name| Directive::new(name.to_owned())).collect())
        };
        let step_up = match policy.annotation("step_up") {
            None => None,
            Some(_) if policy.effect() == Effect::Permit => {
                return Err(refuse("step_up", "stands on a permit: only what forbids can ask for more".to_owned()));
            }
            Some(text) => Some(step_up(text).map_err(|problem| refuse("step_up", problem))?),
        };
        Ok(Rule {
            step_up,
            id: policy.id().to_string().into(),
            obligations: directives("obligation")?,
            advice: directives("advice")?,
            literals: policy.entity_literals(),
            policy: policy.clone(),
        })
    }
}

/// The annotations that mean something here, besides `@id`.
const READ: [&str; 3] = ["obligation", "advice", "step_up"];

/// A name as it may be misspelt: `obligations`, `StepUp`.
fn plain(name: &str) -> String {
    let letters: String =
        name.chars().filter(|letter| *letter != '_').map(|letter| letter.to_ascii_lowercase()).collect();
    letters.strip_suffix('s').map(str::to_owned).unwrap_or(letters)
}

/// `acr_values=gold silver; max_age=300; factors=2`: one of them at least.
fn step_up(text: &str) -> Result<StepUp, String> {
    let (mut classes, mut max_age, mut factors) = (Vec::new(), None, None);
    for part in text.split(';').map(str::trim) {
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is no whole number"));
        match part.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
            Some(("acr_values", value)) if classes.is_empty() => classes.extend(value.split_ascii_whitespace()),
            Some(("max_age", value)) if max_age.is_none() => max_age = Some(number(value)?),
            Some(("factors", value)) if factors.is_none() => factors = Some(number(value)?),
            _ => return Err(format!("{part:?} is none of acr_values=.., max_age=.. and factors=.., each once")),
        }
    }
    let demand = StepUp::of_parts(&classes, max_age, factors).map_err(|error| error.to_string())?;
    demand.ok_or_else(|| "demands nothing".to_owned())
}

enum Statement<'p> {
    Policy(&'p Policy),
    Template(&'p Template),
}

impl Statement<'_> {
    fn text(&self) -> Option<String> {
        match self {
            Self::Policy(policy) => policy.to_cedar(),
            Self::Template(template) => Some(template.to_cedar()),
        }
    }

    fn id_annotation(&self) -> Option<&str> {
        match self {
            Self::Policy(policy) => policy.annotation("id"),
            Self::Template(template) => template.annotation("id"),
        }
    }
}

fn entities<'t>(texts: impl Iterator<Item = &'t SourceText>, types: &Schema) -> Result<Entities, ConfigError> {
    let mut all = Vec::new();
    for source in texts {
        for (raw, start) in elements(source, "entities")? {
            let entity = Entity::from_json_str(raw, Some(types)).map_err(|error| {
                ConfigError::new(format!("{}:{}", source.name, line_of(&source.text, start)), "entity", whole(&error))
            })?;
            all.push(entity);
        }
    }
    Entities::from_entities(all, None).map_err(|error| ConfigError::new("entities", "together", whole(&error)))
}

/// The elements of a JSON array, and where each of them starts.
fn elements<'t>(source: &'t SourceText, what: &str) -> Result<Vec<(&'t str, usize)>, ConfigError> {
    let parsed: Vec<&RawValue> = serde_json::from_str(&source.text).map_err(|error| {
        ConfigError::new(format!("{}:{}", source.name, error.line()), what, format!("must be a JSON array: {error}"))
    })?;
    let mut cursor = 0;
    let elements = parsed.into_iter().map(|raw| {
        let start = source.text.get(cursor..).and_then(|rest| rest.find(raw.get())).unwrap_or(0) + cursor;
        cursor = start + raw.get().len();
        (raw.get(), start)
    });
    Ok(elements.collect())
}

/// An error of Cedar with file, line and reason.
fn at<E: Diagnostic>(source: &SourceText, error: &E, what: &str) -> ConfigError {
    let place = match offset(error) {
        Some(offset) => format!("{}:{}", source.name, line_of(&source.text, offset)),
        None => source.name.clone(),
    };
    ConfigError::new(place, what, format!("is refused: {}", whole(error)))
}

/// Where in the text it is.
fn offset(error: &dyn Diagnostic) -> Option<usize> {
    let own = error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
    own.or_else(|| error.related()?.find_map(offset)).or_else(|| offset(error.diagnostic_source()?))
}

/// The error, what led to it, and what Cedar has to say about it.
pub(super) fn whole(error: &dyn Diagnostic) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    if let Some(help) = error.help() {
        text.push_str(&format!(" ({help})"));
    }
    text
}
