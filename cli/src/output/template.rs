//! Go templates, as far as `--format` needs them: fields, variables, pipes, `if`, `range`, `with` and Docker's functions,
//! over JSON values. Pure.

mod eval;
mod functions;
mod lex;
mod parse;
mod printf;

pub use functions::row_json;

use serde_json::Value;

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    nodes: Vec<parse::Node>,
}

/// Why a template cannot be used; texts in the manner of Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("{0}")]
    Parse(String),
    #[error("executing \"\" at <{at}>: {why}")]
    Execute { at: String, why: String },
}

/// What a field that is not there says: rows of a listing are structs to Go, what `inspect` shows is a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    Field,
    Key,
}

impl Template {
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        Ok(Template {
            nodes: parse::parse(text)?,
        })
    }

    pub fn render(&self, value: &Value, missing: Missing) -> Result<String, TemplateError> {
        eval::render(&self.nodes, value, missing)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(text: &str, value: &Value) -> Result<String, TemplateError> {
        Template::parse(text)?.render(value, Missing::Key)
    }

    fn value() -> Value {
        json!({
            "Name": "/c1",
            "State": {"Running": true, "Pid": 42},
            "Args": ["-c", "true"],
            "Empty": [],
            "Nothing": null,
            "Ports": {"80/tcp": [{"HostPort": "8080"}], "81/tcp": null},
            "Labels": {"b": "2", "a": "<1>"},
        })
    }

    #[test]
    fn templates_give_what_go_gives() {
        let table = [
            ("plain", "plain"),
            ("{{.Name}}", "/c1"),
            ("{{ .State.Pid }}-{{.State.Running}}", "42-true"),
            ("{{json .State}}", r#"{"Running":true,"Pid":42}"#),
            ("{{json .Labels}}", r#"{"b":"2","a":"<1>"}"#),
            ("{{.State | json}}", r#"{"Running":true,"Pid":42}"#),
            ("{{.Args}}", "[-c true]"),
            ("{{.Labels}}", "map[a:<1> b:2]"),
            ("{{.Nothing}}", "<no value>"),
            (
                "{{.Ports}}",
                "map[80/tcp:[map[HostPort:8080]] 81/tcp:<nil>]",
            ),
            ("{{range .Args}}{{.}},{{end}}", "-c,true,"),
            ("{{range .Empty}}x{{else}}none{{end}}", "none"),
            ("{{range .Nothing}}x{{else}}none{{end}}", "none"),
            (
                "{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}",
                "a=<1>;b=2;",
            ),
            (
                "{{range $i, $v := .Args}}{{$i}}{{$v}} {{end}}",
                "0-c 1true ",
            ),
            (
                "{{range .Ports}}{{range .}}{{.HostPort}}{{end}}{{end}}",
                "8080",
            ),
            ("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8080"),
            ("{{index .Labels \"a\"}}", "<1>"),
            ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
            ("{{if .Empty}}a{{else if .Args}}b{{else}}c{{end}}", "b"),
            ("{{with .State}}{{.Pid}}{{end}}", "42"),
            ("{{with .Nothing}}x{{else}}no{{end}}", "no"),
            (
                "{{$x := .State.Pid}}{{range .Args}}{{$x}}{{$.Name}} {{end}}",
                "42/c1 42/c1 ",
            ),
            ("{{len .Args}}", "2"),
            ("{{upper .Name}}{{lower \"AB\"}}{{title \"ab\"}}", "/C1abAb"),
            ("{{join .Args \" \"}}", "-c true"),
            ("{{json (split .Name \"/\")}}", r#"["","c1"]"#),
            ("{{truncate .Name 2}}", "/c"),
            ("{{pad .Name 1 2}}|", " /c1  |"),
            ("{{slice .Name 1 3}}{{slice .Name 2}}", "c11"),
            ("{{json (slice .Args 1)}}", "[\"true\"]"),
            ("{{println .Name}}", "/c1\n"),
            (
                "{{eq .State.Pid 42}} {{ne .Name \"x\"}} {{not .Empty}}",
                "true true true",
            ),
            ("{{and .Name .Args}} {{or .Empty .Name}}", "[-c true] /c1"),
            ("a {{- .Name -}} b", "a/c1b"),
            ("{{\"\\n\"}}{{`x`}}", "\nx"),
            ("{{/* a comment */}}x", "x"),
            ("{{printf \"%s:%d\" .Name .State.Pid}}", "/c1:42"),
            ("{{title \"ab cd\"}}", "Ab Cd"),
            ("{{print 1 2 \"a\" \"b\" 3}}", "1 2ab3"),
            (
                "{{html \"<a>\"}} {{js \"it's\"}} {{urlquery \"a b&c\"}}",
                "&lt;a&gt; it\\'s a+b%26c",
            ),
            ("{{1.5}} {{0x10}} {{'a'}}", "1.5 16 97"),
            ("{{$x := 1}}{{$x = 2}}{{$x}}", "2"),
            ("{{$x := 1}}{{range .Args}}{{$x = .}}{{end}}{{$x}}", "true"),
            (
                "{{with $x := .Name}}{{$x}}{{end}}{{if $y := .Name}}{{$y}}{{end}}",
                "/c1/c1",
            ),
            ("{{range .Args}}{{.}}{{break}}{{end}}", "-c"),
            (
                "{{range .Args}}{{if eq . \"-c\"}}{{continue}}{{end}}{{.}}{{end}}",
                "true",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(render(text, &value()).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_row_gives_single_labels_and_keeps_their_map_to_itself() {
        let row = json!({"Name": "<c1>", "Id": 1, "Label": {"a.b": "1,2"}});
        let field = |text: &str| Template::parse(text).unwrap().render(&row, Missing::Field);
        assert_eq!(
            field("{{.Label \"a.b\"}}|{{.Label \"x\"}}|").unwrap(),
            "1,2||"
        );
        assert_eq!(
            field("{{json .}}").unwrap(),
            "{\"Id\":1,\"Name\":\"\\u003cc1\\u003e\"}"
        );
        let heading = Template::parse("{{.Label \"com.example.the-tier\"}}").unwrap();
        assert_eq!(
            heading
                .render(&json!({"Label": "LABEL"}), Missing::Field)
                .as_deref(),
            Ok("the tier")
        );
    }

    #[test]
    fn an_unknown_field_is_an_error_in_gos_words() {
        assert_eq!(
            render("{{.State.Nope}}", &value()).unwrap_err().to_string(),
            "executing \"\" at <.State.Nope>: map has no entry for key \"Nope\""
        );
        let row = Template::parse("{{.Nope}}").unwrap();
        assert_eq!(
            row.render(&value(), Missing::Field)
                .unwrap_err()
                .to_string(),
            "executing \"\" at <.Nope>: can't evaluate field Nope"
        );
        assert!(render("{{.Name.Nope}}", &value()).is_err());
        assert!(render("{{index .Args 9}}", &value()).is_err());
        assert!(render("{{$nope}}", &value()).is_err());
        assert!(render("{{eq .Name 1}}", &value()).is_err());
    }

    #[test]
    fn bad_templates_are_refused() {
        for (text, why) in [
            ("{{.ID", "unclosed action"),
            ("{{if .A}}x", "unexpected EOF"),
            ("{{end}}", "unexpected {{end}}"),
            ("{{nope .A}}", "function \"nope\" not defined"),
            ("{{}}", "missing value for command"),
            ("{{(.A}}", "unclosed left paren"),
            ("{{\"a}}", "unterminated quoted string"),
        ] {
            let error = Template::parse(text).expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_instead_of_overflowing() {
        let text = format!("{{{{{}.A{}}}}}", "(".repeat(5000), ")".repeat(5000));
        assert!(Template::parse(&text).is_err());
        let text = "{{if .A}}".repeat(5000);
        assert!(Template::parse(&text).is_err());
    }
}
