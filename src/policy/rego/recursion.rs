//! Functions that call themselves, also by way of others. OPA refuses them; the interpreter follows until the stack is used up, which
//! ends the process.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{Expr, Literal, Module, Query, Ref, Rule, RuleAssign, RuleHead};

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
            let Rule::Spec { span, head: RuleHead::Func { refr, assign, .. }, bodies } = &**rule else { continue };
            let Some(name) = path(refr) else { continue };
            let function = self.0.entry(format!("{package}.{name}")).or_insert_with(|| Function {
                place: format!("{}:{}", span.source.file(), span.line),
                calls: BTreeSet::new(),
            });
            let value = |assign: &'_ Option<RuleAssign>| assign.as_ref().map(|assign| assign.value.clone());
            let values = value(assign).into_iter().chain(bodies.iter().filter_map(|body| value(&body.assign)));
            let mut rest = Rest { expressions: values.collect(), queries: Vec::new() };
            rest.queries.extend(bodies.iter().map(|body| body.query.clone()));
            while let Some(expression) = rest.next() {
                let Some(called) = called(&expression) else { continue };
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

/// What the names stand for that a module imports.
fn imports(module: &Module) -> BTreeMap<String, String> {
    let named = |import: &regorus::unstable::Import| {
        let full = path(&import.refr)?;
        let last = full.rsplit('.').next().unwrap_or_default().to_owned();
        Some((import.r#as.as_ref().map_or(last, |name| name.text().to_owned()), full))
    };
    module.imports.iter().filter_map(named).collect()
}

fn called(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Call { fcn, .. } => path(fcn),
        _ => None,
    }
}

/// `a.b["c"]` as `a.b.c`.
fn path(expression: &Expr) -> Option<String> {
    let mut names = Vec::new();
    let mut next = expression;
    loop {
        let (name, parent) = match next {
            Expr::Var { value, .. } => (value, None),
            Expr::RefDot { refr, field: (_, name), .. } => (name, Some(refr)),
            Expr::RefBrack { refr, index, .. } => match &**index {
                Expr::String { value, .. } | Expr::RawString { value, .. } => (value, Some(refr)),
                _ => return None,
            },
            _ => return None,
        };
        names.push(name.as_string().ok()?.to_string());
        match parent {
            Some(parent) => next = parent,
            None => break,
        }
    }
    names.reverse();
    Some(names.join("."))
}

/// What is left to look at. No recursion: a long sum is a deep tree.
struct Rest {
    expressions: Vec<Ref<Expr>>,
    queries: Vec<Ref<Query>>,
}

impl Rest {
    fn next(&mut self) -> Option<Ref<Expr>> {
        while let Some(query) = self.queries.pop() {
            for statement in &query.stmts {
                self.expressions.extend(statement.with_mods.iter().map(|with| with.r#as.clone()));
                match &statement.literal {
                    Literal::SomeVars { .. } => {}
                    Literal::SomeIn { key, value, collection, .. } => {
                        self.expressions.extend(key.clone());
                        self.expressions.extend([value.clone(), collection.clone()]);
                    }
                    Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => self.expressions.push(expr.clone()),
                    Literal::Every { domain, query, .. } => {
                        self.expressions.push(domain.clone());
                        self.queries.push(query.clone());
                    }
                }
            }
        }
        let expression = self.expressions.pop()?;
        self.go_into(&expression);
        Some(expression)
    }

    fn go_into(&mut self, expression: &Expr) {
        match expression {
            Expr::Array { items, .. } | Expr::Set { items, .. } => self.expressions.extend(items.iter().cloned()),
            Expr::Object { fields, .. } => {
                fields.iter().for_each(|(_, key, value)| self.expressions.extend([key.clone(), value.clone()]));
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.expressions.push(term.clone());
                self.queries.push(query.clone());
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                self.expressions.extend([key.clone(), value.clone()]);
                self.queries.push(query.clone());
            }
            Expr::Call { fcn, params, .. } => {
                self.expressions.push(fcn.clone());
                self.expressions.extend(params.iter().cloned());
            }
            Expr::UnaryExpr { expr, .. } => self.expressions.push(expr.clone()),
            Expr::RefDot { refr, .. } => self.expressions.push(refr.clone()),
            Expr::RefBrack { refr, index, .. } => self.expressions.extend([refr.clone(), index.clone()]),
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. } => self.expressions.extend([lhs.clone(), rhs.clone()]),
            Expr::Membership { key, value, collection, .. } => {
                self.expressions.extend(key.clone());
                self.expressions.extend([value.clone(), collection.clone()]);
            }
            _ => {}
        }
    }
}
