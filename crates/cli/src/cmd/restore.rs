//! `reseed restore`

use std::path::{Component, Path};

use jiff::{Span, Timestamp, Zoned, civil, tz::TimeZone};
use reseed_core::error::{OpError, OpKind};
use reseed_core::lock::Claim;
use reseed_core::names::SourceName;
use reseed_core::ops::{self, At, RestoreOptions};
use reseed_core::source::Scope;
use serde_json::{Value, json};

use super::unit::Unit;
use crate::args::RestoreArgs;
use crate::exit::Exit;
use crate::output::Answer;
use crate::session::Session;
use crate::ui::{self, Mood, printable};

pub(crate) async fn run(args: &RestoreArgs, session: &Session) -> Result<Answer, OpError> {
    let service = session.service_of(&args.service, args.from_host.as_deref(), args.to.is_some())?;
    let invalid = |what: String| OpError::new(OpKind::InvalidInput, what);
    let from = args
        .from
        .as_deref()
        .map(SourceName::new)
        .transpose()
        .map_err(|e| invalid(e.to_string()))?;
    let now = session.engine.clock.now().to_zoned(TimeZone::system());
    let at = args.at.as_deref().map_or(Ok(At::Newest), |text| at(text, &now))?;
    let options = RestoreOptions {
        from,
        at,
        set_aside: args.set_aside,
    };
    let scope = match &args.path {
        None => Scope::Whole,
        Some(path) => Scope::Path(relative(path)?),
    };
    let to = args.to.as_deref().map(std::path::absolute).transpose();
    let to = to.map_err(|e| OpError::io("`--to` names no path", &e))?;
    if let Some(to) = &to
        && let Some(place) = session.config.place_near(to)
    {
        return Err(OpError::new(OpKind::InvalidInput, format!("{} is not a place beside: {place}", to.display()))
            .hint("restore into a directory of its own; without `--to` a missing service is put back in place, verified first"));
    }
    if args.how.dry_run {
        let preview = ops::restore_plan(
            &session.engine,
            &session.cx,
            &service,
            &options,
            &scope,
            to.is_none(),
        )
        .await?;
        let mut text = String::new();
        for plan in &preview.plans {
            let point = &plan.request.point;
            let size = plan
                .bytes
                .map(|b| format!(", about {}", ui::bytes(b)))
                .unwrap_or_default();
            text.push_str(&format!(
                "would restore {} from {}, state of {} (point {}){size}\n",
                point.dataset, preview.source, point.taken_at, point.id
            ));
            for step in &plan.steps {
                text.push_str(&format!("  {}\n", printable(step)));
            }
        }
        let unit = match args.set_aside {
            true => Some(Unit::of(session, &args.service).await?),
            false => None,
        };
        text.push_str(&unit.as_ref().map(Unit::shown).unwrap_or_default());
        let exit = match unit.as_ref().is_some_and(Unit::runs) {
            true => Exit::Blocked,
            false => Exit::Ok,
        };
        let mut answer = Answer::new(&preview, text, exit);
        if let (Some(unit), Value::Object(all)) = (unit, &mut answer.json) {
            all.insert("unit".to_owned(), unit.json());
        }
        return Ok(answer);
    }
    // What goes elsewhere changes nothing of the service, whose snapshots are taken on.
    let claim = if to.is_some() {
        Claim::Sending
    } else {
        Claim::Alone
    };
    let _lock = session
        .lock(&service.name, ("restore", claim), args.how.wait)
        .await?;
    let Some(to) = to else {
        if args.set_aside {
            Unit::of(session, &args.service).await?.must_not_run()?;
        }
        let report = ops::restore(&session.engine, &session.cx, &service, &options).await?;
        let mut answer = Answer::of_preseeds(&session.ui, std::slice::from_ref(&report));
        if report.lacks_something() {
            answer.exit = answer.exit.max(Exit::Partial);
        }
        return Ok(answer);
    };
    let restored = ops::restore_to(
        &session.engine,
        &session.cx,
        &service,
        &options,
        &scope,
        &to,
        args.resume,
    )
    .await?;
    let mut text = String::new();
    let mut exit = Exit::Ok;
    for one in &restored {
        let checked = match one.digest_matches {
            Some(true) => "tree digest matches",
            Some(false) => "not all of what was recorded",
            None => "no tree digest to compare with",
        };
        let line = format!(
            "{} from {}, state of {}: {} files, {} in {:.1} s, {checked}, in {}",
            one.dataset,
            one.source,
            one.taken_at,
            one.files,
            ui::bytes(one.bytes),
            one.seconds,
            printable(&one.path.display().to_string())
        );
        text.push_str(&format!("{}\n", session.ui.paint(Mood::Good, &line)));
        for warning in &one.warnings {
            exit = Exit::Partial;
            text.push_str(&format!("  warning: {}\n", printable(warning)));
        }
    }
    Ok(Answer::new(&json!({ "restored": restored }), text, exit))
}

/// A moment: RFC 3339, a local date or date and time, a span back from now (`-2h`), or else a point.
fn at(text: &str, now: &Zoned) -> Result<At, OpError> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(At::Time(time));
    }
    let local = |time: civil::DateTime| {
        let zoned = time.to_zoned(now.time_zone().clone());
        zoned
            .map(|z| At::Time(z.timestamp()))
            .map_err(|e| OpError::new(OpKind::InvalidInput, format!("{text:?} is no time here: {e}")))
    };
    let spaced = text.replacen(' ', "T", 1);
    if let Ok(time) = spaced.parse::<civil::DateTime>() {
        return local(time);
    }
    if let Some(back) = text.strip_prefix('-') {
        let span: Span = back.parse().map_err(|e| {
            OpError::new(OpKind::InvalidInput, format!("{text:?} is no span: {e}"))
                .hint("write it as `-2h`, `-3d` or `-90m`")
        })?;
        let then = now
            .checked_sub(span)
            .map_err(|e| OpError::new(OpKind::InvalidInput, format!("{text:?} is no time: {e}")))?;
        return Ok(At::Time(then.timestamp()));
    }
    if text.is_empty() {
        return Err(OpError::new(
            OpKind::InvalidInput,
            "`--at` needs a time or a point",
        ));
    }
    Ok(At::Point(text.to_owned()))
}

/// A path below the service's root. An absolute one is refused rather than guessed at.
fn relative(path: &Path) -> Result<std::path::PathBuf, OpError> {
    let normal = path
        .components()
        .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    let clean: std::path::PathBuf = path
        .components()
        .filter(|c| matches!(c, Component::Normal(_)))
        .collect();
    if normal && !clean.as_os_str().is_empty() {
        return Ok(clean);
    }
    Err(OpError::new(
        OpKind::InvalidInput,
        format!("{} is not a path below the service's root", path.display()),
    )
    .hint("give it relative to the root, without `..`, as in `--path config.xml`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_or_points() {
        let now: Zoned = "2026-11-22T20:00:00+01:00[Europe/Berlin]".parse().unwrap();
        let time = |text| match at(text, &now).unwrap() {
            At::Time(time) => time.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(time("2026-11-22T12:00:00Z"), "2026-11-22T12:00:00Z");
        assert_eq!(time("2026-11-22 12:00"), "2026-11-22T11:00:00Z");
        assert_eq!(time("2026-11-22"), "2026-11-21T23:00:00Z");
        assert_eq!(time("-2h"), "2026-11-22T17:00:00Z");
        assert_eq!(
            at("autosnap_2026-11-22_20:00:00_hourly", &now).unwrap(),
            At::Point("autosnap_2026-11-22_20:00:00_hourly".into())
        );
        assert_eq!(at("123456789", &now).unwrap(), At::Point("123456789".into()));
        assert!(at("-soon", &now).is_err());
        assert!(at("", &now).is_err());
    }

    #[test]
    fn paths_stay_below_the_root() {
        assert_eq!(relative(Path::new("./a/b")).unwrap(), Path::new("a/b"));
        for bad in ["/etc/passwd", "../a", "a/../../b", ".", ""] {
            assert!(relative(Path::new(bad)).is_err(), "{bad}");
        }
    }
}
