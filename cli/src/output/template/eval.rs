//! From nodes and a value to text. Pure.

use serde_json::Value;

use super::parse::{Expr, Node};
use super::{Missing, TemplateError, functions};

pub fn render(nodes: &[Node], value: &Value, missing: Missing) -> Result<String, TemplateError> {
    let mut scope = Scope {
        missing,
        variables: vec![(String::new(), value.clone())],
        out: String::new(),
    };
    scope.block(nodes, value)?;
    Ok(scope.out)
}

/// Where a template goes on after a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Continue,
    Break,
}

struct Scope {
    missing: Missing,
    /// Innermost last; the empty name is `$`.
    variables: Vec<(String, Value)>,
    out: String,
}

impl Scope {
    /// Variables that are declared inside end with the block.
    fn block(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        let outer = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            flow = self.node(node, dot)?;
            if flow != Flow::On {
                break;
            }
        }
        self.variables.truncate(outer);
        Ok(flow)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, TemplateError> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(expr) => {
                let value = self.expr(expr, dot)?;
                self.out.push_str(&match value {
                    Value::Null => "<no value>".to_owned(),
                    value => functions::words(&value),
                });
            }
            Node::Declare(name, expr) => {
                let value = self.expr(expr, dot)?;
                self.variables.push((name.clone(), value));
            }
            Node::Set(name, expr) => {
                let value = self.expr(expr, dot)?;
                let known = self
                    .variables
                    .iter_mut()
                    .rev()
                    .find(|(known, _)| known == name);
                let (_, known) = known
                    .ok_or_else(|| execute(expr, format!("undefined variable \"${name}\"")))?;
                *known = value;
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
            Node::If {
                name,
                condition,
                then,
                otherwise,
            } => {
                let value = self.expr(condition, dot)?;
                let holds = functions::truth(&value);
                let outer = self.variables.len();
                self.variables
                    .extend(name.clone().map(|name| (name, value)));
                let flow = self.block(if holds { then } else { otherwise }, dot)?;
                self.variables.truncate(outer);
                return Ok(flow);
            }
            Node::With {
                name,
                value,
                then,
                otherwise,
            } => {
                let value = self.expr(value, dot)?;
                let outer = self.variables.len();
                let named = name.clone().map(|name| (name, value.clone()));
                self.variables.extend(named);
                let flow = match functions::truth(&value) {
                    true => self.block(then, &value)?,
                    false => self.block(otherwise, dot)?,
                };
                self.variables.truncate(outer);
                return Ok(flow);
            }
            Node::Range {
                key,
                element,
                over,
                body,
                otherwise,
            } => {
                let items = items(over, self.expr(over, dot)?)?;
                if items.is_empty() {
                    return self.block(otherwise, dot);
                }
                for (index, item) in items {
                    let outer = self.variables.len();
                    self.variables.extend(key.clone().map(|name| (name, index)));
                    let named = element.clone().map(|name| (name, item.clone()));
                    self.variables.extend(named);
                    let flow = self.block(body, &item)?;
                    self.variables.truncate(outer);
                    if flow == Flow::Break {
                        break;
                    }
                }
            }
        }
        Ok(Flow::On)
    }

    fn expr(&self, expr: &Expr, dot: &Value) -> Result<Value, TemplateError> {
        match expr {
            Expr::Literal(value) => Ok(value.clone()),
            Expr::Field(path) => self.path(dot, path, expr),
            Expr::Variable(name, path) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let (_, value) = found
                    .ok_or_else(|| execute(expr, format!("undefined variable \"${name}\"")))?;
                self.path(value, path, expr)
            }
            Expr::Chain(inner, path) => {
                let value = self.expr(inner, dot)?;
                self.path(&value, path, expr)
            }
            Expr::Call(name, arguments) => {
                let arguments: Result<Vec<Value>, _> = arguments
                    .iter()
                    .map(|argument| self.expr(argument, dot))
                    .collect();
                functions::call(name, &arguments?)
                    .map_err(|why| execute(expr, format!("error calling {name}: {why}")))
            }
        }
    }

    fn path(&self, start: &Value, path: &[String], expr: &Expr) -> Result<Value, TemplateError> {
        let mut value = start;
        for name in path {
            value = match value {
                Value::Object(map) => map.get(name).ok_or_else(|| {
                    let why = match self.missing {
                        Missing::Field => format!("can't evaluate field {name}"),
                        Missing::Key => format!("map has no entry for key \"{name}\""),
                    };
                    execute(expr, why)
                })?,
                Value::Null => {
                    return Err(execute(expr, format!("nil pointer evaluating .{name}")));
                }
                _ => return Err(execute(expr, format!("can't evaluate field {name}"))),
            };
        }
        Ok(value.clone())
    }
}

/// Elements of a list with their index, or of a map with their key, in the keys' order.
fn items(expr: &Expr, value: Value) -> Result<Vec<(Value, Value)>, TemplateError> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => Ok((0u64..).map(Value::from).zip(list).collect()),
        Value::Object(map) => {
            let mut items: Vec<(String, Value)> = map.into_iter().collect();
            items.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(items.into_iter().map(|(k, v)| (k.into(), v)).collect())
        }
        other => Err(execute(
            expr,
            format!("range can't iterate over {}", functions::words(&other)),
        )),
    }
}

fn execute(expr: &Expr, why: String) -> TemplateError {
    TemplateError::Execute {
        at: written(expr),
        why,
    }
}

/// The expression as it was written, near enough to find it.
fn written(expr: &Expr) -> String {
    let join = |path: &[String]| {
        path.iter()
            .map(|name| format!(".{name}"))
            .collect::<String>()
    };
    match expr {
        Expr::Field(path) if path.is_empty() => ".".to_owned(),
        Expr::Field(path) => join(path),
        Expr::Variable(name, path) => format!("${name}{}", join(path)),
        Expr::Literal(value) => value.to_string(),
        Expr::Chain(inner, path) => format!("({}){}", written(inner), join(path)),
        Expr::Call(name, arguments) => {
            let words: Vec<String> = arguments.iter().map(written).collect();
            format!("{name} {}", words.join(" ")).trim_end().to_owned()
        }
    }
}
