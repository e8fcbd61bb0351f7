//! From tokens to nodes. Pure.

use super::lex::{Piece, Token, error, pieces};
use super::{TemplateError, functions};

#[derive(Clone, Debug)]
pub enum Node {
    Text(String),
    Print(Expr),
    /// `{{$x := ...}}`
    Declare(String, Expr),
    /// `{{$x = ...}}`
    Set(String, Expr),
    Break,
    Continue,
    If {
        /// `{{if $x := ...}}`
        name: Option<String>,
        condition: Expr,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        name: Option<String>,
        value: Expr,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        /// Names of the key (or index) and of the element.
        key: Option<String>,
        element: Option<String>,
        over: Expr,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
}

#[derive(Clone, Debug)]
pub enum Expr {
    /// `.A.B`; empty: the dot itself.
    Field(Vec<String>),
    /// `$x.A.B`; an empty name: the value the template began with.
    Variable(String, Vec<String>),
    Literal(serde_json::Value),
    Call(String, Vec<Expr>),
    /// `(...).A.B`
    Chain(Box<Expr>, Vec<String>),
}

/// Deep enough for any template that a person writes, and shallow enough for the stack.
const MAX_DEPTH: usize = 100;

pub fn parse(text: &str) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser {
        pieces: pieces(text)?.into_iter(),
    };
    match parser.block(0)? {
        (nodes, End::Eof) => Ok(nodes),
        (_, end) => Err(error(format!("unexpected {end:?}"))),
    }
}

#[derive(Debug)]
enum End {
    Eof,
    Closed,
    /// With the rest of `{{else if ...}}`.
    Else(Vec<Token>),
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
}

impl Parser {
    /// Nodes up to the `{{end}}` or `{{else}}` that closes this block, or up to the end of the text.
    fn block(&mut self, depth: usize) -> Result<(Vec<Node>, End), TemplateError> {
        if depth > MAX_DEPTH {
            return Err(error("too deeply nested"));
        }
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let tokens = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens) => tokens,
            };
            let keyword = match tokens.first() {
                Some(Token::Word(word)) => word.as_str(),
                _ => "",
            };
            match keyword {
                "end" if depth == 0 => return Err(error("unexpected {{end}}")),
                "else" if depth == 0 => return Err(error("unexpected {{else}}")),
                "end" => return Ok((nodes, End::Closed)),
                "else" => return Ok((nodes, End::Else(tokens[1..].to_vec()))),
                "if" | "with" => nodes.push(self.branch(keyword == "if", &tokens[1..], depth)?),
                "range" => nodes.push(self.range(&tokens[1..], depth)?),
                _ => nodes.push(statement(&tokens)?),
            }
        }
        match depth {
            0 => Ok((nodes, End::Eof)),
            _ => Err(error("unexpected EOF")),
        }
    }

    fn branch(
        &mut self,
        is_if: bool,
        tokens: &[Token],
        depth: usize,
    ) -> Result<Node, TemplateError> {
        let (name, tokens) = match tokens {
            [Token::Variable(name), Token::Assign, rest @ ..] => (Some(name.clone()), rest),
            rest => (None, rest),
        };
        if tokens.is_empty() {
            let keyword = if is_if { "if" } else { "with" };
            return Err(error(format!("missing value for {keyword}")));
        }
        let condition = pipeline(tokens)?;
        let (then, end) = self.block(depth + 1)?;
        let otherwise = match end {
            End::Else(rest) if !rest.is_empty() => match &rest[0] {
                Token::Word(word) if word == "if" || word == "with" => {
                    vec![self.branch(word == "if", &rest[1..], depth + 1)?]
                }
                _ => return Err(error("unexpected words after else")),
            },
            end => self.otherwise(end, depth)?,
        };
        Ok(if is_if {
            Node::If {
                name,
                condition,
                then,
                otherwise,
            }
        } else {
            Node::With {
                name,
                value: condition,
                then,
                otherwise,
            }
        })
    }

    fn range(&mut self, tokens: &[Token], depth: usize) -> Result<Node, TemplateError> {
        let (key, element, over) = match tokens {
            [
                Token::Variable(k),
                Token::Comma,
                Token::Variable(v),
                Token::Assign,
                rest @ ..,
            ] => (Some(k.clone()), Some(v.clone()), rest),
            [Token::Variable(v), Token::Assign, rest @ ..] => (None, Some(v.clone()), rest),
            rest => (None, None, rest),
        };
        let over = pipeline(over)?;
        let (body, end) = self.block(depth + 1)?;
        let otherwise = self.otherwise(end, depth)?;
        Ok(Node::Range {
            key,
            element,
            over,
            body,
            otherwise,
        })
    }

    fn otherwise(&mut self, end: End, depth: usize) -> Result<Vec<Node>, TemplateError> {
        match end {
            End::Else(rest) if rest.is_empty() => match self.block(depth + 1)? {
                (nodes, End::Closed) => Ok(nodes),
                _ => Err(error("expected {{end}} after {{else}}")),
            },
            End::Else(_) => Err(error("unexpected words after else")),
            _ => Ok(Vec::new()),
        }
    }
}

fn statement(tokens: &[Token]) -> Result<Node, TemplateError> {
    match tokens {
        [Token::Variable(name), Token::Assign, rest @ ..] => {
            Ok(Node::Declare(name.clone(), pipeline(rest)?))
        }
        [Token::Variable(name), Token::Set, rest @ ..] => {
            Ok(Node::Set(name.clone(), pipeline(rest)?))
        }
        [Token::Word(word)] if word == "break" => Ok(Node::Break),
        [Token::Word(word)] if word == "continue" => Ok(Node::Continue),
        _ => Ok(Node::Print(pipeline(tokens)?)),
    }
}

fn pipeline(tokens: &[Token]) -> Result<Expr, TemplateError> {
    let mut cursor = Cursor { tokens, at: 0 };
    let expr = cursor.pipeline(0)?;
    match cursor.next() {
        None => Ok(expr),
        Some(token) => Err(error(format!("unexpected {token:?}"))),
    }
}

struct Cursor<'a> {
    tokens: &'a [Token],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<&'a Token> {
        self.at += 1;
        self.tokens.get(self.at - 1)
    }

    /// Commands with pipes between: the value of each is the last argument of the next.
    fn pipeline(&mut self, depth: usize) -> Result<Expr, TemplateError> {
        if depth > MAX_DEPTH {
            return Err(error("too deeply nested"));
        }
        let mut expr = self.command(depth)?;
        while self.peek() == Some(&Token::Pipe) {
            self.at += 1;
            expr = match self.command(depth)? {
                Expr::Call(name, mut arguments) => {
                    arguments.push(expr);
                    Expr::Call(name, arguments)
                }
                _ => return Err(error("a value can only be piped into a function")),
            };
        }
        Ok(expr)
    }

    fn command(&mut self, depth: usize) -> Result<Expr, TemplateError> {
        if let Some(Token::Word(name)) = self.peek() {
            if let Some(literal) = keyword(name) {
                self.at += 1;
                return Ok(Expr::Literal(literal));
            }
            if !functions::is_known(name) {
                return Err(error(format!("function {name:?} not defined")));
            }
            self.at += 1;
            let mut arguments = Vec::new();
            while !matches!(self.peek(), None | Some(Token::Pipe | Token::Close)) {
                arguments.push(self.operand(depth)?);
            }
            return Ok(Expr::Call(name.clone(), arguments));
        }
        self.operand(depth)
    }

    fn operand(&mut self, depth: usize) -> Result<Expr, TemplateError> {
        match self.next() {
            Some(Token::Field { name, .. }) => {
                let mut path: Vec<String> = Vec::new();
                path.extend((!name.is_empty()).then(|| name.clone()));
                path.extend(self.fields());
                match (path.last().map(String::as_str), self.peek()) {
                    (Some(functions::LABEL), Some(Token::Text(key))) => {
                        self.at += 1;
                        let arguments = vec![Expr::Field(path), Expr::Literal(key.clone().into())];
                        Ok(Expr::Call(functions::LABEL.to_owned(), arguments))
                    }
                    _ => Ok(Expr::Field(path)),
                }
            }
            Some(Token::Variable(name)) => Ok(Expr::Variable(name.clone(), self.fields())),
            Some(Token::Text(text)) => Ok(Expr::Literal(text.clone().into())),
            Some(Token::Number(number)) => Ok(Expr::Literal(number.clone().into())),
            Some(Token::Word(word)) => match keyword(word) {
                Some(literal) => Ok(Expr::Literal(literal)),
                None if functions::is_known(word) => Ok(Expr::Call(word.clone(), Vec::new())),
                None => Err(error(format!("function {word:?} not defined"))),
            },
            Some(Token::Open) => {
                let inner = self.pipeline(depth + 1)?;
                if self.next() != Some(&Token::Close) {
                    return Err(error("unclosed left paren"));
                }
                let path = self.fields();
                Ok(match path.is_empty() {
                    true => inner,
                    false => Expr::Chain(Box::new(inner), path),
                })
            }
            None => Err(error("missing value for command")),
            Some(token) => Err(error(format!("unexpected {token:?}"))),
        }
    }

    /// `.A.B` right behind a value.
    fn fields(&mut self) -> Vec<String> {
        let mut path = Vec::new();
        while let Some(Token::Field { name, glued: true }) = self.peek() {
            path.push(name.clone());
            self.at += 1;
        }
        path
    }
}

fn keyword(word: &str) -> Option<serde_json::Value> {
    match word {
        "true" => Some(true.into()),
        "false" => Some(false.into()),
        "nil" => Some(serde_json::Value::Null),
        _ => None,
    }
}
