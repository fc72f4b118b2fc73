//! What may be undefined inside of a `not`. OPA works the arguments of a call and the index of a look-up out before it, so that a rule is
//! undefined where they are; the interpreter applies the `not` to the whole, which holds then.

use std::collections::BTreeSet;

use regorus::{
    Value,
    unstable::{BoolOp, Expr, Module, Ref, Rule, RuleHead},
};

use super::syntax::{Names, children, fixed, named, path, segments, value_of};
use crate::policy::QueryParts;

/// What has a value whatever is asked.
pub(super) struct Known {
    /// By full paths: fields of the input, rules that cannot be undefined.
    paths: BTreeSet<String>,
    functions: BTreeSet<String>,
    data: Value,
}

impl Known {
    pub(super) fn new(modules: &[Ref<Module>], data: Value, parts: QueryParts) -> Self {
        let mut known = Self { paths: of_input(parts), functions: BTreeSet::new(), data };
        for module in modules {
            let Some(names) = Names::of(module) else { continue };
            for rule in &module.policy {
                known.add(rule, &names);
            }
        }
        known
    }

    fn add(&mut self, rule: &Rule, names: &Names) {
        match rule {
            Rule::Default { refr, args, .. } if args.is_empty() => {
                self.paths.extend(path(refr).map(|name| names.full(name)))
            }
            Rule::Spec { head: RuleHead::Func { refr, .. }, .. } | Rule::Default { refr, .. } => {
                self.functions.extend(path(refr).map(|name| names.full(name)));
            }
            Rule::Spec { head: RuleHead::Set { refr, .. }, .. } => {
                self.paths.extend(path(refr).map(|name| names.full(name)));
            }
            Rule::Spec { head: head @ RuleHead::Compr { .. }, bodies, .. } => {
                // `m[key] := value` is an object, if only an empty one.
                let fixed = fixed(named(head));
                let is_constant = bodies.is_empty() && value_of(head).is_some_and(|value| is_constant(&value));
                if is_constant || !std::ptr::eq(fixed, named(head)) {
                    self.paths.extend(path(fixed).map(|name| names.full(name)));
                }
            }
        }
    }

    /// Whether the data documents say something there.
    pub(super) fn is_data(&self, path: impl IntoIterator<Item = impl AsRef<str>>) -> bool {
        let found = path.into_iter().fold(&self.data, |value, name| &value[name.as_ref()]);
        !matches!(found, Value::Undefined)
    }

    /// What in a negated expression must have a value to OPA, and may have none. `bound` are texts that have one where this is asked.
    pub(super) fn missing(&self, negated: &Ref<Expr>, names: &Scoped<'_>) -> Option<Ref<Expr>> {
        let mut worked_out = Vec::new();
        match &**negated {
            // Of an equation the sides may be undefined, as far as they are look-ups: OPA unifies them.
            Expr::BoolExpr { op: BoolOp::Eq, lhs, rhs, .. } | Expr::AssignExpr { lhs, rhs, .. } => {
                for side in [lhs, rhs] {
                    indexes(side, &mut worked_out);
                }
            }
            Expr::RefDot { .. } | Expr::RefBrack { .. } | Expr::Var { .. } => indexes(negated, &mut worked_out),
            _ => children(negated, &mut worked_out, &mut Vec::new()),
        }
        worked_out.into_iter().find_map(|expression| self.without_value(expression, names))
    }

    /// The expression, or what is inside of it, if that may have no value.
    pub(super) fn without_value(&self, expression: Ref<Expr>, names: &Scoped<'_>) -> Option<Ref<Expr>> {
        let mut worked_out = vec![expression];
        while let Some(expression) = worked_out.pop() {
            if !names.is_replaced && names.bound.contains(expression.span().text()) {
                continue;
            }
            let has_value = match &*expression {
                Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => self.has_value(&expression, names),
                Expr::Call { fcn, .. } => {
                    path(fcn).is_some_and(|name| !self.functions.contains(&names.names.full(name)))
                }
                _ => true,
            };
            if !has_value {
                return Some(expression);
            }
            if !matches!(&*expression, Expr::RefDot { .. } | Expr::RefBrack { .. }) {
                children(&expression, &mut worked_out, &mut Vec::new());
            }
        }
        None
    }

    fn has_value(&self, reference: &Ref<Expr>, names: &Scoped<'_>) -> bool {
        let Some(segments) = segments(reference) else { return false };
        let first = segments.first().map_or("", |first| first.as_str());
        // A variable is bound, or has no value anywhere.
        if !names.globals.contains(first) {
            return matches!(&**reference, Expr::Var { .. });
        }
        // What is between dots is a name of its own in paths.
        if names.is_replaced || segments.iter().any(|name| name.contains('.')) {
            return false;
        }
        let name = segments.join(".");
        let full = if first == "input" { name } else { names.names.full(name) };
        self.paths.contains(&full) || full.strip_prefix("data.").is_some_and(|path| self.is_data(path.split('.')))
    }
}

/// What the names mean where something is asked.
pub(super) struct Scoped<'a> {
    pub(super) names: &'a Names,
    pub(super) globals: &'a BTreeSet<String>,
    /// The texts of what stands outside of a `not` in the same query, or around it.
    pub(super) bound: &'a BTreeSet<String>,
    /// Whether a `with` holds there, so that neither those texts nor input, data and rules say what has a value.
    pub(super) is_replaced: bool,
}

/// The indexes of a look-up, and what it looks into; anything else whole.
fn indexes(side: &Ref<Expr>, worked_out: &mut Vec<Ref<Expr>>) {
    let mut next = side;
    loop {
        match &**next {
            Expr::RefDot { refr, .. } => next = refr,
            Expr::RefBrack { refr, index, .. } => {
                worked_out.push(index.clone());
                next = refr;
            }
            Expr::Var { .. } => return,
            _ => return worked_out.push(next.clone()),
        }
    }
}

fn is_constant(value: &Ref<Expr>) -> bool {
    let mut rest = vec![value.clone()];
    while let Some(expression) = rest.pop() {
        if matches!(
            &*expression,
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } | Expr::Call { .. } | Expr::ArithExpr { .. }
        ) {
            return false;
        }
        children(&expression, &mut rest, &mut Vec::new());
    }
    true
}

/// The fields that the input always has.
fn of_input(parts: QueryParts) -> BTreeSet<String> {
    let fields: [(QueryParts, &[&str]); 7] = [
        (QueryParts::SUBJECT, &["subject.issuer", "subject.id"]),
        (QueryParts::ROLES, &["subject.roles"]),
        (QueryParts::SCOPES, &["subject.scopes"]),
        (QueryParts::PERMISSIONS, &["subject.permissions"]),
        (QueryParts::STRENGTH, &["subject.amr"]),
        (QueryParts::CLAIMS, &["subject.kind", "subject.credential"]),
        (QueryParts::TIME, &["time", "time_ns"]),
    ];
    let there = fields.into_iter().filter(|(part, _)| parts.has(*part)).flat_map(|(_, fields)| fields);
    let named = there.copied().chain(["action", "subject"]).map(|field| format!("input.{field}"));
    named.chain(["input".to_owned()]).collect()
}
