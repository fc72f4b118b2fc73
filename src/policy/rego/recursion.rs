//! Functions that call themselves, also by way of others. OPA refuses them; the interpreter follows until the stack is used up, which
//! ends the process.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{Expr, Module, Query, Ref, Rule, RuleHead};

use super::syntax::{Nested, children, imports, parts, path, place, value_of};
use crate::error::ConfigError;

/// Refuses what calls itself.
pub(super) fn refuse(modules: &[Ref<Module>]) -> Result<(), ConfigError> {
    let mut functions = Functions::default();
    modules.iter().for_each(|module| functions.read(module));
    match functions.recursive() {
        Some((name, place)) => Err(ConfigError::new(place, name, "calls itself, or a function that leads back to it")),
        None => Ok(()),
    }
}

/// The functions by their full names.
#[derive(Default)]
struct Functions(BTreeMap<String, Function>);

struct Function {
    /// File and line.
    place: String,
    calls: BTreeSet<String>,
}

impl Functions {
    fn read(&mut self, module: &Module) {
        let Some(package) = path(&module.package.refr).map(|package| format!("data.{package}")) else { return };
        let imports = imports(module);
        for rule in &module.policy {
            let Rule::Spec { span, head, bodies } = &**rule else { continue };
            let RuleHead::Func { refr, .. } = head else { continue };
            let Some(name) = path(refr) else { continue };
            let function = self
                .0
                .entry(format!("{package}.{name}"))
                .or_insert_with(|| Function { place: place(span), calls: BTreeSet::new() });
            let queries = bodies.iter().map(|body| body.query.clone()).collect();
            let own = bodies.iter().filter_map(|body| body.assign.as_ref()).map(|assign| assign.value.clone());
            let mut rest = Rest { expressions: value_of(head).into_iter().chain(own).collect(), queries };
            while let Some(expression) = rest.next() {
                let Expr::Call { fcn, .. } = &*expression else { continue };
                let Some(called) = path(fcn) else { continue };
                let (first, after) =
                    called.split_once('.').map_or((&*called, None), |(first, after)| (first, Some(after)));
                function.calls.insert(match (first, imports.get(first), after) {
                    ("data", ..) => called,
                    (_, Some(imported), Some(after)) => format!("{imported}.{after}"),
                    (_, Some(imported), None) => imported.clone(),
                    (_, None, _) => format!("{package}.{called}"),
                });
            }
        }
    }

    fn recursive(&self) -> Option<(&str, &str)> {
        let found = self.0.iter().find(|(name, _)| self.leads_back(name));
        found.map(|(name, function)| (name.as_str(), function.place.as_str()))
    }

    fn leads_back(&self, name: &str) -> bool {
        let mut seen = BTreeSet::new();
        let mut next = vec![name];
        while let Some(name) = next.pop() {
            let Some(function) = self.0.get(name) else { continue };
            next.extend(function.calls.iter().map(String::as_str).filter(|called| seen.insert(*called)));
        }
        seen.contains(name)
    }
}

/// What is left to look at.
struct Rest {
    expressions: Vec<Ref<Expr>>,
    queries: Vec<Ref<Query>>,
}

impl Rest {
    fn next(&mut self) -> Option<Ref<Expr>> {
        let mut nested = Vec::new();
        while let Some(query) = self.queries.pop() {
            for statement in &query.stmts {
                self.expressions.extend(statement.with_mods.iter().map(|with| with.r#as.clone()));
                parts(&statement.literal, &mut self.expressions, &mut nested);
            }
            self.look_into(&mut nested);
        }
        let expression = self.expressions.pop()?;
        children(&expression, &mut self.expressions, &mut nested);
        self.look_into(&mut nested);
        Some(expression)
    }

    fn look_into(&mut self, nested: &mut Vec<Nested>) {
        for Nested { query, terms, .. } in nested.drain(..) {
            self.expressions.extend(terms);
            self.queries.push(query);
        }
    }
}
