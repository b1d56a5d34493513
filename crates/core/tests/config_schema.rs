//! The JSON Schema and the reader are made of one declaration; these tests hold them to each other on real documents.
//!
//! The checker below knows the keywords that the schema has, and refuses a schema with any other: a keyword that
//! nobody checks would prove nothing.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use reseed_core::config::{self, Format};
use serde_json::{Value, json};

const EXAMPLE: &str = include_str!("../../../examples/reseed.toml");
const ZFS_EXAMPLE: &str = include_str!("../../../examples/zfs.toml");
const DOCS: &str = include_str!("../../../docs/configuration.md");

fn check(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let fail = |why: &str| Err(format!("{at}: {why}"));
    for (keyword, rule) in schema.as_object().ok_or("a schema is an object")? {
        match keyword.as_str() {
            "$schema" | "title" | "description" | "$defs" => {}
            "$ref" => {
                let pointer = rule
                    .as_str()
                    .and_then(|rule| rule.strip_prefix('#'))
                    .ok_or("a local $ref")?;
                check(
                    root,
                    root.pointer(pointer).ok_or(format!("{pointer} leads nowhere"))?,
                    value,
                    at,
                )?;
            }
            "type" => {
                let fits = match rule.as_str().ok_or("one type")? {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_i64(),
                    "boolean" => value.is_boolean(),
                    other => return Err(format!("unknown type {other}")),
                };
                if !fits {
                    return fail(&format!("is not of type {rule}"));
                }
            }
            "const" if rule == value => {}
            "const" => return fail(&format!("is not {rule}")),
            "minimum" if value.as_i64() >= rule.as_i64() => {}
            "maximum" if value.as_i64() <= rule.as_i64() => {}
            "minLength"
                if value.as_str().map(str::len)
                    >= rule.as_u64().map(|least| usize::try_from(least).unwrap()) => {}
            "minimum" | "maximum" | "minLength" => return fail(&format!("breaks {keyword} {rule}")),
            // Patterns are for editors; what they say is held by the tests of the values.
            "pattern" | "propertyNames" => {}
            "anyOf" | "oneOf" => {
                let fits = rule
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|rule| check(root, rule, value, at).is_ok())
                    .count();
                if fits == 0 || (keyword == "oneOf" && fits != 1) {
                    return fail(&format!("fits {fits} of {keyword}"));
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, item, &format!("{at}[{index}]"))?;
                }
            }
            "required" => {
                for key in rule.as_array().unwrap().iter().filter_map(Value::as_str) {
                    if value.get(key).is_none() {
                        return fail(&format!("lacks {key}"));
                    }
                }
            }
            "properties" => {
                for (key, rule) in rule.as_object().unwrap() {
                    if let Some(value) = value.get(key) {
                        check(root, rule, value, &format!("{at}.{key}"))?;
                    }
                }
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                for (key, value) in value.as_object().into_iter().flatten() {
                    match rule {
                        _ if known.is_some_and(|known| known.contains_key(key)) => {}
                        Value::Bool(false) => return fail(&format!("has the unknown key {key}")),
                        rule => check(root, rule, value, &format!("{at}.{key}"))?,
                    }
                }
            }
            other => {
                return Err(format!(
                    "the schema has a keyword that this check does not know: {other}"
                ));
            }
        }
    }
    Ok(())
}

fn by_schema(value: &Value) -> Result<(), String> {
    let schema = config::schema();
    check(&schema, &schema, value, "$")
}

fn json(toml: &str) -> Value {
    serde_json::to_value(toml::from_str::<toml::Value>(toml).unwrap()).unwrap()
}

#[test]
fn the_example_and_the_documentation_fit_the_schema() {
    by_schema(&json(EXAMPLE)).unwrap();
    by_schema(&json(ZFS_EXAMPLE)).unwrap();
    for snippet in DOCS.split("```toml\n").skip(1) {
        by_schema(&json(snippet.split("```").next().unwrap())).unwrap();
    }
}

#[test]
fn what_is_shown_fits_the_schema() {
    for example in [EXAMPLE, ZFS_EXAMPLE] {
        let config = config::parse(example, Format::Toml, "f").unwrap().config;
        by_schema(&serde_json::to_value(&config).unwrap()).unwrap();
        by_schema(&json(&config::to_toml(&config))).unwrap();
    }
}

/// Mistakes in the shape of a document, each of which both have to see.
#[test]
fn schema_and_reader_refuse_the_same() {
    let sound = json(EXAMPLE);
    let mistakes: [(&str, Value); 19] = [
        ("/whatever", json!(1)),
        ("/services/sonarr/whatever", json!(1)),
        ("/services/sonarr/path", json!(1)),
        ("/services/sonarr/budget", json!(50)),
        ("/services/sonarr/tries", json!(0)),
        ("/services/sonarr/tries", json!(101)),
        ("/services/sonarr/prefer", json!("fastest")),
        ("/services/sonarr/replicas", json!("usb")),
        ("/services/sonarr/chain", json!([1])),
        ("/services/sonarr/validators", json!([{ "exists": {} }])),
        (
            "/services/sonarr/validators",
            json!([{ "exist": { "path": "a" } }]),
        ),
        ("/services/postgresql/datasets", json!([])),
        ("/services/postgresql/retention/daily", json!(-1)),
        ("/services/postgresql/retention/fortnightly", json!(1)),
        ("/stores/local", json!({ "type": "directory" })),
        ("/stores/local", json!({ "type": "zfs", "path": "/srv/reseed" })),
        (
            "/replicas/usb",
            json!({ "type": "zfs", "root": "usb", "ssh": { "host": "nas" } }),
        ),
        (
            "/replicas/usb",
            json!({ "type": "zfs", "root": "usb", "mapping": "whole" }),
        ),
        ("/offsite/nas/type", json!("embeded")),
    ];
    for (pointer, value) in mistakes {
        let mut document = sound.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = if parent.is_empty() {
            &mut document
        } else {
            document.pointer_mut(parent).unwrap()
        };
        parent[key] = value;
        assert!(
            by_schema(&document).is_err(),
            "the schema takes {pointer}: {document}"
        );
        let text = document.to_string();
        assert!(
            config::parse_on(&text, Format::Json, "f", None).is_err(),
            "the reader takes {pointer}: {document}"
        );
    }
}

#[test]
fn the_schema_describes_every_key() {
    fn walk(schema: &Value, at: &str) -> usize {
        let mut seen = 0;
        for (key, value) in schema.as_object().into_iter().flatten() {
            if key != "properties" {
                seen += walk(value, &format!("{at}.{key}"));
                continue;
            }
            // A key may itself be called `properties`, so the map of keys is no schema.
            for (name, property) in value.as_object().into_iter().flatten() {
                let description = property["description"].as_str().unwrap_or_default();
                assert!(!description.is_empty(), "{at}.{name}");
                seen += 1 + walk(property, &format!("{at}.{name}"));
            }
        }
        seen
    }
    assert!(walk(&config::schema(), "$") > 30);
}
