//! The effective configuration as TOML, each value with where it came from. Reads back as the same configuration.

use serde_json::Value;

use super::model::Config;

/// The order of retention's counts for a reader. What is not among them keeps its own.
const COUNTS: [&str; 6] = ["frequently", "hourly", "daily", "weekly", "monthly", "yearly"];

/// The configuration with all defaults filled in, and behind each value the line it was written in, or `default`.
pub fn to_toml(config: &Config) -> String {
    let mut out = Out {
        config,
        text: String::new(),
    };
    out.row("host", &Value::from(config.host.as_str()), &["host"]);
    out.row("state_dir", &serde_json::json!(config.state_dir), &["state_dir"]);
    for (kind, places) in [("stores", &config.stores), ("replicas", &config.replicas)] {
        for (name, place) in places {
            out.table(kind, name.as_str(), &serde_json::json!(place));
        }
    }
    for (name, pull) in &config.pulls {
        out.table("pulls", name.as_str(), &serde_json::json!(pull));
    }
    for (name, offsite) in &config.offsite {
        out.table("offsite", name.as_str(), &serde_json::json!(offsite));
    }
    for (name, declared) in &config.datasets {
        out.header(&["datasets", name.as_str()]);
        let at = format!("datasets/{name}");
        if let Some(profile) = declared.profile {
            out.row("profile", &Value::from(profile), &[&format!("{at}/profile")]);
        }
        for (key, value) in serde_json::json!(declared.ownership)
            .as_object()
            .into_iter()
            .flatten()
        {
            out.row(key, value, &[&format!("{at}/{key}")]);
        }
        for (key, value) in [
            ("properties", serde_json::json!(declared.properties)),
            ("snapshots", serde_json::json!(declared.snapshots)),
        ] {
            let Value::Object(entries) = value else { continue };
            if entries.is_empty() {
                continue;
            }
            out.header(&["datasets", name.as_str(), key]);
            let mut entries: Vec<_> = entries.into_iter().collect();
            entries.sort_by_key(|(key, _)| COUNTS.iter().position(|count| count == key));
            for (name, value) in entries {
                out.row(&name, &value, &[&format!("{at}/{key}/{name}")]);
            }
        }
    }
    for (name, service) in &config.services {
        out.header(&["services", name.as_str()]);
        let (mut tables, mut rows) = (Vec::new(), Vec::new());
        for (key, value) in service.rows() {
            match value {
                Value::Object(entries) => tables.push((key, entries)),
                value => rows.push((key, value)),
            }
        }
        for (key, value) in rows {
            out.row(
                key,
                &value,
                &[&format!("services/{name}/{key}"), &format!("defaults/{key}")],
            );
        }
        for (table, entries) in tables {
            out.header(&["services", name.as_str(), table]);
            let mut entries: Vec<_> = entries.into_iter().collect();
            entries.sort_by_key(|(key, _)| COUNTS.iter().position(|count| count == key));
            for (key, value) in entries {
                let own = format!("services/{name}/{table}/{key}");
                out.row(&key, &value, &[&own, &format!("defaults/{table}/{key}")]);
            }
        }
    }
    out.text
}

struct Out<'a> {
    config: &'a Config,
    text: String,
}

impl Out<'_> {
    fn header(&mut self, keys: &[&str]) {
        let keys: Vec<_> = keys.iter().map(|key| bare_or_quoted(key)).collect();
        self.text.push_str(&format!("\n[{}]\n", keys.join(".")));
    }

    fn table(&mut self, kind: &str, name: &str, value: &Value) {
        self.header(&[kind, name]);
        for (key, value) in value.as_object().into_iter().flatten() {
            self.row(key, value, &[&format!("{kind}/{name}/{key}")]);
        }
    }

    fn row(&mut self, key: &str, value: &Value, origins: &[&str]) {
        // Names, paths, counts and lists of them: everything in a configuration has a TOML form.
        let value = toml::Value::try_from(value).map_or_else(|_| String::new(), |value| value.to_string());
        let row = format!("{} = {value}", bare_or_quoted(key));
        let origin = self.config.origins.tell(origins);
        self.text.push_str(&format!(
            "{row:<50} # {}\n",
            origin.replace(char::is_control, " ")
        ));
    }
}

fn bare_or_quoted(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(bare) {
        key.to_owned()
    } else {
        toml::Value::from(key).to_string()
    }
}
