//! What OPA refuses, and the interpreter takes for something else: names in a `not` that nothing outside of it binds, a `with` whose value
//! may be undefined before another `with`, a function that names an argument twice, and a rule where another module's package or data
//! are. And what OPA takes for something else: what may be [undefined](super::defined) inside of a `not`.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use regorus::unstable::{Expr, Literal, LiteralStmt, Module, Query, Ref, Rule, RuleHead, Span};

use super::{
    defined::{Known, Scoped},
    syntax::{Names, Nested, children, fixed, named, parts, path, place, segments, value_of},
};
use crate::error::ConfigError;

/// Refuses what means something else here than to OPA. `lenient`: whether functions that fail are undefined.
pub(super) fn refuse(modules: &[Ref<Module>], known: &Known, lenient: bool) -> Result<(), ConfigError> {
    apart(modules, known)?;
    let mut rules: BTreeMap<Option<String>, BTreeSet<String>> = BTreeMap::new();
    for module in modules {
        let named = module.policy.iter().filter_map(|rule| first_name(rule));
        rules.entry(path(&module.package.refr)).or_default().extend(named);
    }
    modules.iter().try_for_each(|module| {
        let mut globals = rules.get(&path(&module.package.refr)).cloned().unwrap_or_default();
        let Some(names) = Names::of(module) else { return Ok(()) };
        globals.extend(names.imported().cloned().chain(["input".to_owned(), "data".to_owned()]));
        let globals = Globals { names: globals, full: names, known, lenient };
        module.policy.iter().try_for_each(|rule| globals.check_rule(rule))
    })
}

/// Refuses a rule that has the path of a package, or of what is around one, and one that has that of data: which of them counts depends on who
/// asks.
fn apart(modules: &[Ref<Module>], known: &Known) -> Result<(), ConfigError> {
    let packages: BTreeSet<Vec<String>> = modules.iter().filter_map(|module| segments(&module.package.refr)).collect();
    for module in modules {
        let Some(package) = segments(&module.package.refr) else { continue };
        for rule in &module.policy {
            let (span, name) = match &**rule {
                Rule::Spec { span, head, .. } => (span, named(head)),
                Rule::Default { span, refr, .. } => (span, refr),
            };
            let Some(name) = segments(fixed(name)) else { continue };
            let rule: Vec<String> = package.iter().cloned().chain(name).collect();
            if let Some(other) = packages.iter().find(|other| other.starts_with(&rule)) {
                let problem = format!("is where the package {} is", other.join("."));
                return Err(ConfigError::new(place(span), rule.join("."), problem));
            }
            if known.is_data(&rule) {
                let rule = format!("data.{}", rule.join("."));
                return Err(ConfigError::new("data document", rule, "is defined by a rule, too"));
            }
        }
    }
    Ok(())
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
struct Globals<'a> {
    names: BTreeSet<String>,
    full: Names,
    known: &'a Known,
    lenient: bool,
}

/// A query, and what names are bound around it. A rule without a body has a value, and no query.
struct Scope {
    query: Option<Ref<Query>>,
    /// What is worked out once it holds, and may have queries of its own.
    terms: Vec<Ref<Expr>>,
    outer: Rc<Outer>,
}

/// What is around a query.
#[derive(Clone, Default)]
struct Outer {
    /// The names that are bound.
    names: BTreeSet<String>,
    /// The texts of what must have a value for the query to hold.
    texts: BTreeSet<String>,
}

impl Globals<'_> {
    fn check_rule(&self, rule: &Rule) -> Result<(), ConfigError> {
        let Rule::Spec { span, head, bodies } = rule else { return Ok(()) };
        let arguments = match head {
            RuleHead::Func { args, .. } => arguments(span, args)?,
            _ => BTreeSet::new(),
        };
        let outer = Rc::new(Outer { names: arguments, texts: BTreeSet::new() });
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
        let mut bound = Outer::clone(&scope.outer);
        let mut nested = Vec::new();
        let statements = scope.query.as_ref().map_or(&[][..], |query| &query.stmts);
        for statement in statements {
            let mut expressions = Vec::new();
            if !matches!(statement.literal, Literal::NotExpr { .. }) {
                parts(&statement.literal, &mut expressions, &mut nested);
            }
            for expression in each(expressions, &mut nested) {
                // Under a `with` it may have a value that it has nowhere else.
                if statement.with_mods.is_empty() {
                    bound.texts.insert(expression.span().text().to_owned());
                }
                bound.names.extend(variable(&expression).map(|(name, _)| name));
            }
        }
        for statement in statements {
            let mut expressions: Vec<_> = statement.with_mods.iter().map(|with| with.r#as.clone()).collect();
            if matches!(statement.literal, Literal::NotExpr { .. }) {
                parts(&statement.literal, &mut expressions, &mut nested);
                let unbound = |(name, _): &(String, Span)| {
                    name == "_" || !bound.names.contains(name) && !self.names.contains(name)
                };
                let all = each(expressions, &mut nested);
                if let Some((name, span)) = all.iter().filter_map(|expression| variable(expression)).find(unbound) {
                    let problem = "is unsafe: nothing outside of the `not` binds it, so that it would hold as soon as one element does not; \
                         ask in a rule of its own, or by `in`, and negate that";
                    return Err(ConfigError::new(place(&span), name, problem));
                }
                self.check_negated(statement, &bound)?;
            } else {
                each(expressions, &mut nested);
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
            let scoped = self.scoped(&bound, false);
            if let Some(value) =
                before_last.iter().find_map(|with| self.known.without_value(with.r#as.clone(), &scoped))
            {
                let problem = "stands before another `with` and may be undefined, which the other would hide: bind it to a variable first";
                return Err(ConfigError::new(place(value.span()), value.span().text(), problem));
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
                Rc::make_mut(&mut outer).names.extend(names);
            }
            Scope { query: Some(query), terms, outer }
        }));
        Ok(())
    }

    fn check_negated(&self, statement: &LiteralStmt, bound: &Outer) -> Result<(), ConfigError> {
        let Literal::NotExpr { expr, .. } = &statement.literal else { return Ok(()) };
        let scoped = self.scoped(bound, !statement.with_mods.is_empty());
        let Some(missing) = self.known.missing(expr, &scoped) else { return Ok(()) };
        let problem = "may be undefined inside of the `not`, which would hold then, while OPA takes the rule for undefined; \
             bind it in a statement of its own, `x := ..`, and negate what is said of that";
        Err(ConfigError::new(place(missing.span()), missing.span().text(), problem))
    }

    fn scoped<'a>(&'a self, bound: &'a Outer, is_replaced: bool) -> Scoped<'a> {
        Scoped { names: &self.full, globals: &self.names, bound: &bound.texts, is_replaced }
    }
}

/// The variables of a function's arguments, each of which stands there once.
fn arguments(span: &Span, args: &[Ref<Expr>]) -> Result<BTreeSet<String>, ConfigError> {
    let mut names = BTreeSet::new();
    for (name, _) in each(args.to_vec(), &mut Vec::new()).iter().filter_map(|argument| variable(argument)) {
        if name != "_" && !names.insert(name.clone()) {
            let problem = "is an argument twice, and the two would not be compared";
            return Err(ConfigError::new(place(span), name, problem));
        }
    }
    Ok(names)
}

/// Expressions and what is inside of them, but for queries.
fn each(mut rest: Vec<Ref<Expr>>, nested: &mut Vec<Nested>) -> Vec<Ref<Expr>> {
    let mut all = Vec::new();
    while let Some(expression) = rest.pop() {
        children(&expression, &mut rest, nested);
        all.push(expression);
    }
    all
}

fn variable(expression: &Expr) -> Option<(String, Span)> {
    match expression {
        Expr::Var { span, value, .. } => Some((value.as_string().ok()?.to_string(), span.clone())),
        _ => None,
    }
}
