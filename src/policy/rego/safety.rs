//! What OPA refuses, and the interpreter takes for something else: names in a `not` that nothing outside of it binds, a `with` whose value
//! may be undefined before another `with`, a function that names an argument twice, and a rule where another module's package is.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use regorus::unstable::{Expr, Literal, Module, Query, Ref, Rule, RuleHead, Span};

use super::syntax::{Nested, children, imports, parts, path, place, value_of};
use crate::error::ConfigError;

/// Refuses what means something else here than to OPA. `lenient`: whether functions that fail are undefined.
pub(super) fn refuse(modules: &[Ref<Module>], lenient: bool) -> Result<(), ConfigError> {
    apart(modules)?;
    let mut rules: BTreeMap<Option<String>, BTreeSet<String>> = BTreeMap::new();
    for module in modules {
        let named = module.policy.iter().filter_map(|rule| first_name(rule));
        rules.entry(path(&module.package.refr)).or_default().extend(named);
    }
    modules.iter().try_for_each(|module| {
        let mut globals = rules.get(&path(&module.package.refr)).cloned().unwrap_or_default();
        globals.extend(imports(module).into_keys().chain(["input".to_owned(), "data".to_owned()]));
        let globals = Globals { names: globals, lenient };
        module.policy.iter().try_for_each(|rule| globals.check_rule(rule))
    })
}

/// Refuses a rule that has the path of a package, or of what is around one: which of them counts depends on who asks.
fn apart(modules: &[Ref<Module>]) -> Result<(), ConfigError> {
    let packages: BTreeSet<String> = modules.iter().filter_map(|module| path(&module.package.refr)).collect();
    for module in modules {
        let Some(package) = path(&module.package.refr) else { continue };
        for rule in &module.policy {
            let (span, refr) = match &**rule {
                Rule::Spec { span, head, .. } => (span, named(head)),
                Rule::Default { span, refr, .. } => (span, refr),
            };
            let Some(rule) = path(refr).map(|name| format!("{package}.{name}")) else { continue };
            let is_around = |other: &&String| {
                other.strip_prefix(&*rule).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            if let Some(other) = packages.iter().find(is_around) {
                let problem = format!("is where the package {other} is");
                return Err(ConfigError::new(place(span), rule, problem));
            }
        }
    }
    Ok(())
}

const fn named(head: &RuleHead) -> &Ref<Expr> {
    match head {
        RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. } => refr,
    }
}

/// The first name of a rule, which its package knows it by: `roles` of `roles.admin`.
fn first_name(rule: &Rule) -> Option<String> {
    let mut next = match rule {
        Rule::Spec { head, .. } => named(head),
        Rule::Default { refr, .. } => refr,
    };
    loop {
        match &**next {
            Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } => next = refr,
            Expr::Var { value, .. } => return value.as_string().ok().map(ToString::to_string),
            _ => return None,
        }
    }
}

/// The names that a module has everywhere: rules of its package, imports, `input` and `data`.
struct Globals {
    names: BTreeSet<String>,
    lenient: bool,
}

/// A query, and what names are bound around it. A rule without a body has a value, and no query.
struct Scope {
    query: Option<Ref<Query>>,
    /// What is worked out once it holds, and may have queries of its own.
    terms: Vec<Ref<Expr>>,
    outer: Rc<BTreeSet<String>>,
}

impl Globals {
    fn check_rule(&self, rule: &Rule) -> Result<(), ConfigError> {
        let Rule::Spec { span, head, bodies } = rule else { return Ok(()) };
        let arguments = match head {
            RuleHead::Func { args, .. } => arguments(span, args)?,
            _ => BTreeSet::new(),
        };
        let outer = Rc::new(arguments);
        let scope = |query, value: Option<Ref<Expr>>| Scope {
            query,
            terms: value.into_iter().collect(),
            outer: Rc::clone(&outer),
        };
        let mut scopes: Vec<_> = if bodies.is_empty() { vec![scope(None, value_of(head))] } else { Vec::new() };
        scopes.extend(bodies.iter().map(|body| {
            let own = body.assign.as_ref().map(|assign| assign.value.clone());
            scope(Some(body.query.clone()), own.or_else(|| value_of(head).filter(|_| !body.is_else)))
        }));
        while let Some(scope) = scopes.pop() {
            self.check_query(scope, &mut scopes)?;
        }
        Ok(())
    }

    fn check_query(&self, scope: Scope, scopes: &mut Vec<Scope>) -> Result<(), ConfigError> {
        let mut bound = BTreeSet::clone(&scope.outer);
        let mut nested = Vec::new();
        let statements = scope.query.as_ref().map_or(&[][..], |query| &query.stmts);
        for statement in statements {
            let mut expressions = Vec::new();
            if !matches!(statement.literal, Literal::NotExpr { .. }) {
                parts(&statement.literal, &mut expressions, &mut nested);
            }
            bound.extend(variables(expressions, &mut nested).into_iter().map(|(name, _)| name));
        }
        for statement in statements {
            let mut expressions: Vec<_> = statement.with_mods.iter().map(|with| with.r#as.clone()).collect();
            if matches!(statement.literal, Literal::NotExpr { .. }) {
                parts(&statement.literal, &mut expressions, &mut nested);
                let unbound =
                    |(name, _): &(String, Span)| name == "_" || !bound.contains(name) && !self.names.contains(name);
                if let Some((name, span)) = variables(expressions, &mut nested).into_iter().find(unbound) {
                    let problem = "is unsafe: nothing outside of the `not` binds it, so that it would hold as soon as one element does not; \
                         ask in a rule of its own, or by `in`, and negate that";
                    return Err(ConfigError::new(place(&span), name, problem));
                }
            } else {
                variables(expressions, &mut nested);
            }
            // A function that fails inside of it would be left out, and what it replaced would stay for the rest of the question.
            if let Some(with) = statement.with_mods.first().filter(|_| self.lenient) {
                return Err(ConfigError::new(
                    place(&with.span),
                    "with",
                    "cannot be had together with lenient_builtins",
                ));
            }
            let before_last = statement.with_mods.split_last().map_or(&[][..], |(_, before)| before);
            if let Some(with) = before_last.iter().find(|with| self.may_be_undefined(&with.r#as)) {
                let problem = "stands before another `with` and may be undefined, which the other would hide: bind it to a variable first";
                return Err(ConfigError::new(place(&with.span), with.r#as.span().text(), problem));
            }
        }
        let mut terms = scope.terms;
        while let Some(term) = terms.pop() {
            children(&term, &mut terms, &mut nested);
        }
        let bound = Rc::new(bound);
        scopes.extend(nested.into_iter().map(|Nested { query, terms, names }| {
            let mut outer = Rc::clone(&bound);
            if !names.is_empty() {
                Rc::make_mut(&mut outer).extend(names);
            }
            Scope { query: Some(query), terms, outer }
        }));
        Ok(())
    }

    /// Whether a value may be undefined: all but what stands there, comprehensions, and variables, which are bound or have no value.
    fn may_be_undefined(&self, value: &Ref<Expr>) -> bool {
        let mut rest = vec![value.clone()];
        while let Some(expression) = rest.pop() {
            match &*expression {
                Expr::Var { value, .. } => {
                    let is_global = |name| self.names.contains(name);
                    if value.as_string().map_or(true, |name| is_global(&**name)) {
                        return true;
                    }
                }
                Expr::String { .. }
                | Expr::RawString { .. }
                | Expr::Number { .. }
                | Expr::Bool { .. }
                | Expr::Null { .. }
                | Expr::ArrayCompr { .. }
                | Expr::SetCompr { .. }
                | Expr::ObjectCompr { .. } => {}
                Expr::Array { .. } | Expr::Set { .. } | Expr::Object { .. } => {
                    children(&expression, &mut rest, &mut Vec::new());
                }
                _ => return true,
            }
        }
        false
    }
}

/// The variables of a function's arguments, each of which stands there once.
fn arguments(span: &Span, args: &[Ref<Expr>]) -> Result<BTreeSet<String>, ConfigError> {
    let mut names = BTreeSet::new();
    for (name, _) in variables(args.to_vec(), &mut Vec::new()) {
        if name != "_" && !names.insert(name.clone()) {
            let problem = "is an argument twice, and the two would not be compared";
            return Err(ConfigError::new(place(span), name, problem));
        }
    }
    Ok(names)
}

/// The variables of expressions, but for those of queries inside of them.
fn variables(mut expressions: Vec<Ref<Expr>>, nested: &mut Vec<Nested>) -> Vec<(String, Span)> {
    let mut names = Vec::new();
    while let Some(expression) = expressions.pop() {
        if let Expr::Var { span, value, .. } = &*expression
            && let Ok(name) = value.as_string()
        {
            names.push((name.to_string(), span.clone()));
        }
        children(&expression, &mut expressions, nested);
    }
    names
}
