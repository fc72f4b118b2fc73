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

/// What the names stand for that a module imports.
pub(super) fn imports(module: &Module) -> BTreeMap<String, String> {
    let named = |import: &Import| {
        let full = path(&import.refr)?;
        let last = full.rsplit('.').next().unwrap_or_default().to_owned();
        Some((import.r#as.as_ref().map_or(last, |name| name.text().to_owned()), full))
    };
    module.imports.iter().filter_map(named).collect()
}

/// `a.b["c"]` as `a.b.c`.
pub(super) fn path(expression: &Expr) -> Option<String> {
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

/// File and line.
pub(super) fn place(span: &Span) -> String {
    format!("{}:{}", span.source.file(), span.line)
}
