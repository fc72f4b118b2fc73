//! Functions that call themselves, also by way of others, or where a `with` puts them. OPA refuses them; the interpreter follows until the stack is used up, which
//! ends the process.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{Expr, Module, Query, Ref, Rule, RuleHead};

use super::syntax::{Nested, children, imports, parts, path, place, value_of};
use crate::error::ConfigError;

/// Refuses what calls itself.
pub(super) fn refuse(modules: &[Ref<Module>]) -> Result<(), ConfigError> {
    let mut functions = Functions::default();
    modules.iter().for_each(|module| functions.read(module));
    functions.replace();
    match functions.recursive() {
        Some((name, place)) => Err(ConfigError::new(place, name, "calls itself, or a function that leads back to it")),
        None => Ok(()),
    }
}

/// The functions by their full names.
#[derive(Default)]
struct Functions {
    known: BTreeMap<String, Function>,
    /// What a `with` replaces, and by what.
    replaced: Vec<(String, String)>,
}

struct Function {
    /// File and line.
    place: String,
    calls: BTreeSet<String>,
}

impl Functions {
    fn read(&mut self, module: &Module) {
        let Some(package) = path(&module.package.refr).map(|package| format!("data.{package}")) else { return };
        let names = Names { package, imports: imports(module) };
        for rule in &module.policy {
            let (span, function, mut rest) = match &**rule {
                Rule::Spec { span, head, bodies } => {
                    let own = bodies.iter().filter_map(|body| body.assign.as_ref()).map(|assign| assign.value.clone());
                    let expressions = value_of(head).into_iter().chain(own).collect();
                    let queries = bodies.iter().map(|body| body.query.clone()).collect();
                    let function = match head {
                        RuleHead::Func { refr, .. } => path(refr),
                        _ => None,
                    };
                    (span, function, Rest { expressions, queries, replaced: Vec::new() })
                }
                Rule::Default { span, refr, args, value, .. } => {
                    let function = if args.is_empty() { None } else { path(refr) };
                    (
                        span,
                        function,
                        Rest { expressions: vec![value.clone()], queries: Vec::new(), replaced: Vec::new() },
                    )
                }
            };
            let mut calls = function.map(|name| {
                let new = || Function { place: place(span), calls: BTreeSet::new() };
                &mut self.known.entry(format!("{}.{name}", names.package)).or_insert_with(new).calls
            });
            while let Some(expression) = rest.next() {
                if let Expr::Call { fcn, .. } = &*expression
                    && let (Some(calls), Some(called)) = (&mut calls, path(fcn))
                {
                    calls.insert(names.full(called));
                }
            }
            let replaced = rest.replaced.iter().filter_map(|(replaced, by)| path(replaced).zip(path(by)));
            self.replaced.extend(replaced.map(|(replaced, by)| (names.full(replaced), names.full(by))));
        }
    }

    /// What calls the one calls the other, as long as a `with` holds.
    fn replace(&mut self) {
        for (replaced, by) in std::mem::take(&mut self.replaced) {
            if let Some(place) = self.known.get(&by).map(|function| function.place.clone()) {
                let new = || Function { place, calls: BTreeSet::new() };
                self.known.entry(replaced).or_insert_with(new).calls.insert(by);
            }
        }
    }

    fn recursive(&self) -> Option<(&str, &str)> {
        let found = self.known.iter().find(|(name, _)| self.leads_back(name));
        found.map(|(name, function)| (name.as_str(), function.place.as_str()))
    }

    fn leads_back(&self, name: &str) -> bool {
        let mut seen = BTreeSet::new();
        let mut next = vec![name];
        while let Some(name) = next.pop() {
            let Some(function) = self.known.get(name) else { continue };
            next.extend(function.calls.iter().map(String::as_str).filter(|called| seen.insert(*called)));
        }
        seen.contains(name)
    }
}

/// What the names of a module stand for.
struct Names {
    package: String,
    imports: BTreeMap<String, String>,
}

impl Names {
    fn full(&self, name: String) -> String {
        let (first, after) = name.split_once('.').map_or((&*name, None), |(first, after)| (first, Some(after)));
        match (first, self.imports.get(first), after) {
            ("data", ..) => name,
            (_, Some(imported), Some(after)) => format!("{imported}.{after}"),
            (_, Some(imported), None) => imported.clone(),
            (_, None, _) => format!("{}.{name}", self.package),
        }
    }
}

/// What is left to look at.
struct Rest {
    expressions: Vec<Ref<Expr>>,
    queries: Vec<Ref<Query>>,
    /// What a `with` replaces, and by what.
    replaced: Vec<(Ref<Expr>, Ref<Expr>)>,
}

impl Rest {
    fn next(&mut self) -> Option<Ref<Expr>> {
        let mut nested = Vec::new();
        while let Some(query) = self.queries.pop() {
            for statement in &query.stmts {
                self.expressions.extend(statement.with_mods.iter().map(|with| with.r#as.clone()));
                self.replaced.extend(statement.with_mods.iter().map(|with| (with.refr.clone(), with.r#as.clone())));
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
