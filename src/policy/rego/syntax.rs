//! How a module is walked, without recursion: a long sum is a deep tree.

use std::collections::BTreeMap;

use regorus::unstable::{Expr, Import, Literal, Module, Query, Ref, RuleHead, Span};

/// A query inside an expression or a statement, and what stands before its bar.
pub(super) struct Nested {
    pub(super) query: Ref<Query>,
    pub(super) terms: Vec<Ref<Expr>>,
    /// What an `every` names.
    pub(super) names: Vec<String>,
}

/// What is directly inside an expression; the name of a function is not.
pub(super) fn children(expression: &Expr, expressions: &mut Vec<Ref<Expr>>, nested: &mut Vec<Nested>) {
    let mut comprehension = |terms: &[&Ref<Expr>], query: &Ref<Query>| {
        let terms = terms.iter().map(|term| (*term).clone()).collect();
        nested.push(Nested { query: query.clone(), terms, names: Vec::new() });
    };
    match expression {
        Expr::Array { items, .. } | Expr::Set { items, .. } => expressions.extend(items.iter().cloned()),
        Expr::Object { fields, .. } => {
            fields.iter().for_each(|(_, key, value)| expressions.extend([key.clone(), value.clone()]));
        }
        Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => comprehension(&[term], query),
        Expr::ObjectCompr { key, value, query, .. } => comprehension(&[key, value], query),
        Expr::Call { params, .. } => expressions.extend(params.iter().cloned()),
        Expr::UnaryExpr { expr, .. } => expressions.push(expr.clone()),
        Expr::RefDot { refr, .. } => expressions.push(refr.clone()),
        Expr::RefBrack { refr, index, .. } => expressions.extend([refr.clone(), index.clone()]),
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. }
        | Expr::AssignExpr { lhs, rhs, .. } => expressions.extend([lhs.clone(), rhs.clone()]),
        Expr::Membership { key, value, collection, .. } => {
            expressions.extend(key.clone());
            expressions.extend([value.clone(), collection.clone()]);
        }
        _ => {}
    }
}

/// What is directly inside a statement, but for its `with`.
pub(super) fn parts(literal: &Literal, expressions: &mut Vec<Ref<Expr>>, nested: &mut Vec<Nested>) {
    match literal {
        Literal::SomeVars { .. } => {}
        Literal::SomeIn { key, value, collection, .. } => {
            expressions.extend(key.clone());
            expressions.extend([value.clone(), collection.clone()]);
        }
        Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => expressions.push(expr.clone()),
        Literal::Every { key, value, domain, query, .. } => {
            expressions.push(domain.clone());
            let names = key.iter().chain([value]).map(|name| name.text().to_owned()).collect();
            nested.push(Nested { query: query.clone(), terms: Vec::new(), names });
        }
    }
}

/// The value, or the element of a set, that the head of a rule says.
pub(super) fn value_of(head: &RuleHead) -> Option<Ref<Expr>> {
    match head {
        RuleHead::Compr { assign, .. } | RuleHead::Func { assign, .. } => {
            assign.as_ref().map(|assign| assign.value.clone())
        }
        RuleHead::Set { key, .. } => key.clone(),
    }
}

/// What the names of a module stand for.
pub(super) struct Names {
    package: String,
    imports: BTreeMap<String, String>,
}

impl Names {
    pub(super) fn of(module: &Module) -> Option<Self> {
        let named = |import: &Import| {
            let full = path(&import.refr)?;
            let last = full.rsplit('.').next().unwrap_or_default().to_owned();
            Some((import.r#as.as_ref().map_or(last, |name| name.text().to_owned()), full))
        };
        let package = format!("data.{}", path(&module.package.refr)?);
        Some(Self { package, imports: module.imports.iter().filter_map(named).collect() })
    }

    pub(super) fn imported(&self) -> impl Iterator<Item = &String> {
        self.imports.keys()
    }

    /// The full path of a rule or a function: `data.orders.allow`.
    pub(super) fn full(&self, name: String) -> String {
        let (first, after) = name.split_once('.').map_or((&*name, None), |(first, after)| (first, Some(after)));
        match (first, self.imports.get(first), after) {
            ("data", ..) => name,
            (_, Some(imported), Some(after)) => format!("{imported}.{after}"),
            (_, Some(imported), None) => imported.clone(),
            (_, None, _) => format!("{}.{name}", self.package),
        }
    }
}

/// What a rule is called.
pub(super) const fn named(head: &RuleHead) -> &Ref<Expr> {
    match head {
        RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. } => refr,
    }
}

/// `a.b["c"]` as `a.b.c`.
pub(super) fn path(expression: &Expr) -> Option<String> {
    Some(segments(expression)?.join("."))
}

/// `a.b["c"]` as `a`, `b` and `c`.
pub(super) fn segments(expression: &Expr) -> Option<Vec<String>> {
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
    Some(names)
}

/// What of a rule's name is the same for all that it defines: `m` of `m[key]`.
pub(super) fn fixed(name: &Ref<Expr>) -> &Ref<Expr> {
    let mut fixed = name;
    while let (None, Expr::RefBrack { refr, .. } | Expr::RefDot { refr, .. }) = (segments(fixed), &**fixed) {
        fixed = refr;
    }
    fixed
}

/// File and line.
pub(super) fn place(span: &Span) -> String {
    format!("{}:{}", span.source.file(), span.line)
}
