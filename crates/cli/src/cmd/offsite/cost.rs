//! `reseed offsite cost`

use reseed_core::config::{Listed, Price};
use reseed_core::error::OpError;
use reseed_core::names::SourceName;
use reseed_core::ops::{self, RepoCost};
use serde_json::json;

use crate::exit::Exit;
use crate::output::Answer;
use crate::session::Session;
use crate::ui::{bytes, printable};

pub(super) async fn run(named: &[String], session: &Session) -> Result<Answer, OpError> {
    let mut repositories: Vec<SourceName> = Vec::new();
    for name in named {
        let name = session.offsite_name(name)?;
        if !repositories.contains(&name) {
            repositories.push(name);
        }
    }
    if named.is_empty() {
        repositories.extend(session.config.offsite.keys().cloned());
    }
    let (mut text, mut exit, mut found) = (String::new(), Exit::Ok, Vec::new());
    for name in &repositories {
        let (price, list) = price(session, name);
        let repo = session.repo(name.as_str())?;
        match ops::cost(&session.engine, &session.cx, repo.as_ref(), price.as_ref()).await {
            Ok(cost) => {
                text.push_str(&told(&cost, price.as_ref(), list));
                let mut entry = json!(cost);
                entry["price"] = json!(price);
                entry["list"] = json!(list);
                found.push(entry);
            }
            Err(error) => {
                let answer = Answer::of_error(&session.ui, &error);
                text.push_str(&answer.text);
                exit = exit.max(answer.exit);
                found.push(json!({ "repository": name, "error": error.report() }));
            }
        }
        if session.cx.cancel.is_cancelled() {
            exit = Exit::Interrupted;
            break;
        }
    }
    if repositories.is_empty() {
        text.push_str("no off-site repository is configured\n");
    }
    Ok(Answer::new(&json!({ "repositories": found }), text, exit))
}

/// The declared price, or the one of a list, and of which.
fn price(session: &Session, name: &SourceName) -> (Option<Price>, Option<&'static str>) {
    let Some(offsite) = session.config.offsite.get(name) else {
        return (None, None);
    };
    if let Some(price) = offsite.price() {
        return (Some(price.clone()), None);
    }
    match Listed::of(offsite.repository()) {
        Some(Listed { price, list }) => (Some(price), Some(list)),
        None => (None, None),
    }
}

fn told(cost: &RepoCost, price: Option<&Price>, list: Option<&'static str>) -> String {
    let objects = match cost.usage.objects {
        Some(objects) => format!(" in {objects} objects"),
        None => " that points need (its server isn't listed)".to_owned(),
    };
    let mut text = format!("{}: {}{objects}\n", cost.repository, bytes(cost.usage.bytes));
    match cost.growth {
        Some(growth) => text.push_str(&format!(
            "  grows by {} a month, by what this host's backups added in {} days\n",
            bytes(growth.in_months(1)),
            growth.seconds / 86_400
        )),
        None => text.push_str("  its growth isn't known before there are backups of more than a day\n"),
    }
    let (Some(sum), Some(price)) = (&cost.cost, price) else {
        text.push_str(&format!(
            "  no price is known: declare one, as in `[offsite.{}.price]` with `storage = 6.95`, for 10^12 bytes and a month\n",
            cost.repository
        ));
        return text;
    };
    let currency = printable(&price.currency);
    text.push_str(&format!("  a month: {} {currency}", sum.month));
    if let Some(later) = sum.month_in_a_year {
        text.push_str(&format!("; in a year {later} {currency}, with nothing aged out"));
    }
    text.push_str(&format!(
        "\n  getting all of it back once: {} {currency}\n",
        sum.download
    ));
    let source = match list {
        Some(list) => format!("list price ({list})"),
        None => "the price of the configuration".to_owned(),
    };
    text.push_str(&format!(
        "  by {source}: {} {currency} for 10^12 bytes and a month, {} {currency} for downloading as many\n",
        price.storage, price.download
    ));
    text
}
