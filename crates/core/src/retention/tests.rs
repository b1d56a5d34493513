use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::restic::{Count, GroupBy, Within, Zone};
use super::sanoid::Kind;
use super::*;

fn at(text: &str) -> Timestamp {
    text.parse()
        .unwrap_or_else(|_| format!("{text}Z").parse().unwrap())
}

fn hours_before(now: Timestamp, hours: i64) -> Timestamp {
    now - SignedDuration::from_hours(hours)
}

fn autosnap(kind: &str, created: Timestamp) -> Point {
    let name = format!("autosnap_{}_{kind}", created.strftime("%Y-%m-%d_%H:%M:%S"));
    Point::new(name.clone(), name, created)
}

fn inventory(points: impl IntoIterator<Item = Point>) -> Inventory {
    Inventory {
        points: points.into_iter().collect(),
        ..Inventory::default()
    }
}

fn removed(plan: &Plan) -> Vec<&str> {
    plan.remove
        .iter()
        .map(|removed| removed.point.name.as_str())
        .collect()
}

fn kept(plan: &Plan) -> Vec<&str> {
    plan.keep.iter().map(|kept| kept.point.name.as_str()).collect()
}

const NOW: &str = "2026-11-22T20:33:00Z";

mod sanoid_rules {
    use super::*;

    fn hourly(number: u32) -> Policy {
        Policy::Sanoid(sanoid::Policy {
            hourly: Some(number),
            ..Default::default()
        })
    }

    #[test]
    fn old_ones_stay_while_there_are_not_more_than_wanted() {
        // sanoid: "we ALSO mean don't get rid of ANY dailies unless we have more than 30".
        let now = at(NOW);
        let old = (100..103).map(|hours| autosnap("hourly", hours_before(now, hours)));
        assert!(plan(inventory(old), &hourly(3), now).remove.is_empty());
    }

    #[test]
    fn many_stay_while_they_are_young() {
        let now = at(NOW);
        let young = (0..60).map(|minutes| autosnap("hourly", now - SignedDuration::from_mins(minutes)));
        assert!(plan(inventory(young), &hourly(1), now).remove.is_empty());
    }

    #[test]
    fn the_oldest_go_first_and_only_down_to_the_number() {
        let now = at(NOW);
        let points =
            (0..10).map(|n| Point::new(format!("autosnap_{n}_hourly"), "", hours_before(now, 10 * n)));
        let plan = plan(inventory(points), &hourly(4), now);
        let expected: Vec<String> = (4..10).map(|n| format!("autosnap_{n}_hourly")).collect();
        assert_eq!(removed(&plan), expected);
    }

    #[test]
    fn the_border_is_exact() {
        // Strictly older than N periods, in whole seconds, as sanoid compares them.
        let now = at(NOW);
        for (seconds, goes) in [(7_199, false), (7_200, false), (7_201, true)] {
            let border = autosnap("hourly", now - SignedDuration::from_secs(seconds));
            let points = [
                autosnap("hourly", now),
                autosnap("hourly", hours_before(now, 1)),
                border,
            ];
            assert_eq!(
                plan(inventory(points), &hourly(2), now).remove.len() == 1,
                goes,
                "{seconds}"
            );
        }
    }

    #[test]
    fn types_count_by_themselves() {
        let now = at(NOW);
        let of = |kind: &'static str| {
            (1..=4).map(move |n| autosnap(kind, now - SignedDuration::from_hours(n * 10_000)))
        };
        let policy = Policy::Sanoid(sanoid::Policy {
            hourly: Some(2),
            daily: Some(4),
            ..Default::default()
        });
        let plan = plan(
            inventory(of("hourly").chain(of("daily")).chain(of("monthly"))),
            &policy,
            now,
        );
        assert!(
            removed(&plan).iter().all(|name| name.ends_with("hourly")),
            "{plan}"
        );
        assert_eq!(plan.remove.len(), 2);
    }

    #[test]
    fn zero_removes_all_of_the_type_but_not_the_newest_point() {
        let now = at(NOW);
        let points = (1..5).map(|n| autosnap("hourly", hours_before(now, n)));
        let alone = plan(inventory(points.clone()), &hourly(0), now);
        assert_eq!(
            (alone.remove.len(), alone.keep[0].reasons.as_slice()),
            (3, &[KeepReason::Newest][..])
        );
        let newer = points.chain([Point::new("by-hand", "", now)]);
        assert_eq!(plan(inventory(newer), &hourly(0), now).remove.len(), 4);
    }

    #[test]
    fn periods_are_sanoids() {
        let policy = sanoid::Policy {
            frequent_period: Some(5),
            ..Default::default()
        };
        let seconds: Vec<i64> = Kind::ALL.iter().map(|kind| policy.period(*kind)).collect();
        assert_eq!(seconds, [300, 3_600, 86_400, 604_800, 2_678_400, 31_557_600]);
        assert_eq!(sanoid::Policy::default().period(Kind::Frequently), 900);
    }

    #[test]
    fn types_are_read_from_names_as_sanoids_expressions_do() {
        for (name, kind) in [
            ("autosnap_2026-11-22_20:33:00_hourly", Some(Kind::Hourly)),
            ("autosnap_2026-10-25_02:00:00_dst_hourly", Some(Kind::Hourly)),
            ("autosnap_2026-10-25_02:00:00dst_hourly", Some(Kind::Hourly)),
            ("autosnap_2026-11-22_20:33:00_frequently", Some(Kind::Frequently)),
            ("autosnap_x_yearly", Some(Kind::Yearly)),
            ("autosnap_daily_family", None),
            ("autosnap_daily-ly", Some(Kind::Daily)),
            ("autosnap_2026-11-22_hourly_", None),
            ("autosnap_2026-11-22_20:33:00_hourlyx", None),
            ("autosnap-hourly", None),
            ("syncoid_host_2026_hourly", None),
            ("hourly", None),
            ("", None),
            ("autosnap_ü_hourly", Some(Kind::Hourly)),
        ] {
            assert_eq!(Kind::of_name(name), kind, "{name}");
        }
    }

    #[test]
    fn names_are_made_as_sanoid_makes_them_and_read_back() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let local = at("2026-10-25T00:00:00Z").to_zoned(zone);
        assert_eq!(
            Kind::Hourly.snapshot_name(&local, false),
            "autosnap_2026-10-25_02:00:00_hourly"
        );
        for kind in Kind::ALL {
            for clash in [false, true] {
                assert_eq!(Kind::of_name(&kind.snapshot_name(&local, clash)), Some(kind));
            }
        }
    }

    #[test]
    fn age_is_creation_and_not_the_name() {
        let now = at(NOW);
        let lies = |n: i64| {
            Point::new(
                format!("autosnap_2001-01-0{n}_00:00:00_hourly"),
                "",
                hours_before(now, n),
            )
        };
        assert!(
            plan(inventory((1..5).map(lies)), &hourly(5), now)
                .remove
                .is_empty()
        );
    }

    #[test]
    fn pruning_waits_until_the_pool_is_fuller() {
        let now = at(NOW);
        let policy = Policy::Sanoid(sanoid::Policy {
            hourly: Some(1),
            prune_defer: Some(60),
            ..Default::default()
        });
        let removes = |percent| {
            let points = (1..5).map(|n| autosnap("hourly", hours_before(now, n * 10)));
            let inventory = Inventory {
                pool_percent_full: percent,
                ..inventory(points)
            };
            plan(inventory, &policy, now).remove.len()
        };
        assert_eq!([removes(Some(60)), removes(Some(61)), removes(None)], [0, 3, 0]);
    }
}

mod restic_rules {
    use super::*;

    fn daily_points(days: i64) -> Vec<Point> {
        let newest = at("2026-11-22T12:00:00Z");
        (0..days)
            .map(|n| Point::new(format!("d{n}"), format!("{n}"), hours_before(newest, 24 * n)))
            .collect()
    }

    fn keeps(policy: restic::Policy, points: Vec<Point>) -> Vec<String> {
        let plan = plan(inventory(points), &Policy::Restic(policy), at(NOW));
        kept(&plan).into_iter().map(str::to_owned).collect()
    }

    fn rules(plan: &Plan, name: &str) -> Vec<String> {
        let kept = plan.keep.iter().find(|kept| kept.point.name == name).unwrap();
        kept.reasons.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_first_of_each_day_is_kept() {
        let points = ["22T20:00", "22T10:00", "21T23:59", "21T00:00", "20T12:00"]
            .map(|t| Point::new(t, t, at(&format!("2026-11-{t}:00Z"))));
        let policy = restic::Policy {
            keep_daily: Count::Newest(2),
            ..Default::default()
        };
        assert_eq!(keeps(policy, points.to_vec()), ["22T20:00", "21T23:59"]);
    }

    #[test]
    fn the_oldest_stays_while_a_rule_has_some_left() {
        let points =
            ["22T20:00", "22T10:00", "22T09:00"].map(|t| Point::new(t, t, at(&format!("2026-11-{t}:00Z"))));
        let policy = restic::Policy {
            keep_daily: Count::Newest(2),
            ..Default::default()
        };
        let plan = plan(inventory(points), &Policy::Restic(policy), at(NOW));
        assert_eq!(kept(&plan), ["22T20:00", "22T09:00"]);
        assert_eq!(rules(&plan, "22T09:00"), ["oldest daily snapshot"]);
    }

    #[test]
    fn several_rules_add_up() {
        let policy = restic::Policy {
            keep_daily: Count::Newest(3),
            keep_weekly: Count::Newest(3),
            keep_monthly: Count::Newest(2),
            ..Default::default()
        };
        // 22 November 2026 is a Sunday, the last day of its ISO week.
        assert_eq!(
            keeps(policy, daily_points(60)),
            ["d0", "d1", "d2", "d7", "d14", "d22"]
        );
    }

    #[test]
    fn a_week_is_the_iso_week_also_across_the_year() {
        // 29 December 2025 to 4 January 2026 is week 1 of 2026.
        let points = ["2026-01-04", "2026-01-01", "2025-12-29", "2025-12-28"]
            .map(|day| Point::new(day, day, at(&format!("{day}T12:00:00Z"))));
        let policy = restic::Policy {
            keep_weekly: Count::Newest(2),
            ..Default::default()
        };
        assert_eq!(keeps(policy, points.to_vec()), ["2026-01-04", "2025-12-28"]);
    }

    #[test]
    fn minus_one_keeps_all_of_a_rule() {
        let policy = restic::Policy {
            keep_last: Count::All,
            ..Default::default()
        };
        assert_eq!(keeps(policy, daily_points(50)).len(), 50);
        let policy = restic::Policy {
            keep_monthly: Count::All,
            ..Default::default()
        };
        assert_eq!(keeps(policy, daily_points(50)), ["d0", "d22", "d49"]);
    }

    #[test]
    fn within_counts_from_the_newest_that_is_not_in_the_future() {
        let mut points = daily_points(10);
        points.push(Point::new("future", "f", at("2030-01-01T00:00:00Z")));
        let policy = restic::Policy {
            keep_within: "2d".parse().unwrap(),
            ..Default::default()
        };
        // d2 is exactly two days older, and restic wants strictly less.
        assert_eq!(keeps(policy, points), ["future", "d0", "d1"]);
    }

    #[test]
    fn within_a_unit_keeps_one_per_unit() {
        let policy = restic::Policy {
            keep_within_weekly: "21d".parse().unwrap(),
            ..Default::default()
        };
        assert_eq!(keeps(policy, daily_points(60)), ["d0", "d7", "d14"]);
    }

    #[test]
    fn one_month_before_the_31st_is_in_the_same_month_as_go_has_it() {
        // Go's AddDate: "31 February" is 3 March. So the point of 2 March is out, that of 4 March is in.
        let points = ["2026-03-31", "2026-03-04", "2026-03-03", "2026-03-02"]
            .map(|day| Point::new(day, day, at(&format!("{day}T12:00:00Z"))));
        let policy = restic::Policy {
            keep_within: "1m".parse().unwrap(),
            ..Default::default()
        };
        assert_eq!(keeps(policy, points.to_vec()), ["2026-03-31", "2026-03-04"]);
    }

    #[test]
    fn a_duration_longer_than_time_keeps_all() {
        for within in [
            "9999y",
            "4294967295y",
            "4294967295m",
            "4294967295d",
            "4294967295h",
        ] {
            let policy = restic::Policy {
                keep_within: within.parse().unwrap(),
                ..Default::default()
            };
            assert_eq!(keeps(policy, daily_points(5)).len(), 5, "{within}");
        }
    }

    #[test]
    fn days_are_those_of_the_given_zone() {
        // Both on 21 November in UTC, but on two days in Tokyo.
        let points = [
            "2026-11-21T16:00:00Z",
            "2026-11-21T14:00:00Z",
            "2026-11-20T12:00:00Z",
        ]
        .map(|t| Point::new(t, t, at(t)));
        let in_zone = |zone| restic::Policy {
            keep_daily: Count::Newest(2),
            time_zone: zone,
            ..Default::default()
        };
        let tokyo = Zone::new("Tokyo", TimeZone::posix("JST-9").unwrap());
        assert_eq!(
            keeps(in_zone(None), points.to_vec()),
            ["2026-11-21T16:00:00Z", "2026-11-20T12:00:00Z"]
        );
        assert_eq!(
            keeps(in_zone(Some(tokyo)), points.to_vec()),
            ["2026-11-21T16:00:00Z", "2026-11-21T14:00:00Z"]
        );
    }

    #[test]
    fn tags_keep_without_counting() {
        let mut points = daily_points(5);
        for (at, tags) in [(2, vec!["a", "b"]), (3, vec!["a"]), (4, vec!["c"])] {
            points[at].tags = tags.into_iter().map(str::to_owned).collect();
        }
        let keep = |lists: &[&[&str]]| {
            let keep_tags = lists
                .iter()
                .map(|l| l.iter().map(|t| (*t).to_owned()).collect())
                .collect();
            keeps(
                restic::Policy {
                    keep_tags,
                    group_by: BTreeSet::new(),
                    ..Default::default()
                },
                points.clone(),
            )
        };
        assert_eq!(keep(&[&["a", "b"]]), ["d0", "d2"]);
        assert_eq!(keep(&[&["a"], &["c"]]), ["d0", "d2", "d3", "d4"]);
        assert_eq!(keep(&[&[""]]), ["d0", "d1"]);
    }

    #[test]
    fn groups_count_by_themselves() {
        let mut points = daily_points(6);
        for (n, point) in points.iter_mut().enumerate() {
            point.host = if n % 2 == 0 { "a" } else { "b" }.to_owned();
            point.paths = BTreeSet::from([format!("/{n}")]);
        }
        let by = |group_by: &[GroupBy]| {
            let group_by = group_by.iter().copied().collect();
            keeps(
                restic::Policy {
                    keep_last: Count::Newest(1),
                    group_by,
                    ..Default::default()
                },
                points.clone(),
            )
        };
        assert_eq!(by(&[GroupBy::Host]), ["d0", "d1"]);
        assert_eq!(by(&[]), ["d0"]);
        assert_eq!(by(&[GroupBy::Host, GroupBy::Paths]).len(), 6);
    }

    #[test]
    fn durations_are_read_as_restic_reads_them() {
        let within = |years, months, days, hours| Within {
            years,
            months,
            days,
            hours,
        };
        for (text, expected) in [
            ("1y5m7d2h", within(1, 5, 7, 2)),
            (" 13d23h ", within(0, 0, 13, 23)),
            ("2h1y", within(1, 0, 0, 2)),
            ("1d2d", within(0, 0, 2, 0)),
            ("", Within::default()),
        ] {
            assert_eq!(text.parse::<Within>(), Ok(expected), "{text}");
        }
        for wrong in ["1", "d", "1w", "-1d", "1 d", "99999999999d", "1ü"] {
            assert!(wrong.parse::<Within>().is_err(), "{wrong}");
        }
        assert_eq!(within(1, 0, 7, 2).to_string(), "1y7d2h");
    }

    #[test]
    fn a_policy_is_read_from_a_configuration() {
        let policy: restic::Policy = toml::from_str(
            "keep-last = 3\nkeep-daily = -1\nkeep-within = \"90d\"\nkeep-tags = [[\"a\", \"b\"]]\ngroup-by = [\"host\"]\ntime-zone = \"UTC\"",
        )
        .unwrap();
        assert_eq!(
            (policy.keep_last, policy.keep_daily),
            (Count::Newest(3), Count::All)
        );
        for wrong in [
            "keep-last = -2",
            "keep-within = \"1w\"",
            "keep_last = 1",
            "time-zone = \"Mars/Olympus\"",
        ] {
            assert!(toml::from_str::<restic::Policy>(wrong).is_err(), "{wrong}");
        }
        let only_grouping: restic::Policy = toml::from_str("group-by = [\"paths\"]\nkeep-last = 0").unwrap();
        assert!(only_grouping.is_empty());
    }
}

mod guards {
    use super::*;

    fn strict() -> Policy {
        Policy::Restic(restic::Policy {
            keep_last: Count::Newest(1),
            ..Default::default()
        })
    }

    fn points() -> Vec<Point> {
        (0..6)
            .map(|n| Point::new(format!("p{n}"), "", hours_before(at(NOW), n)))
            .collect()
    }

    #[test]
    fn an_unseeded_service_loses_nothing() {
        let plan = plan(
            Inventory {
                unseeded: true,
                ..inventory(points())
            },
            &strict(),
            at(NOW),
        );
        assert_eq!((plan.remove.len(), plan.keep.len()), (0, 6));
    }

    #[test]
    fn held_base_and_last_good_points_stay() {
        let mut points = points();
        points[2].holds = vec!["run-1".to_owned()];
        points[3].lineage_base = true;
        points[4].last_good = true;
        let plan = plan(inventory(points), &strict(), at(NOW));
        assert_eq!(kept(&plan), ["p0", "p2", "p3", "p4"]);
        assert_eq!(
            plan.keep[1].reasons,
            [KeepReason::Held {
                by: vec!["run-1".to_owned()]
            }]
        );
    }

    #[test]
    fn no_rules_remove_nothing() {
        for policy in [
            Policy::Sanoid(Default::default()),
            Policy::Restic(Default::default()),
        ] {
            assert_eq!(plan(inventory(points()), &policy, at(NOW)).remove.len(), 0);
        }
    }

    #[test]
    fn a_point_from_the_future_does_not_stand_in_for_the_newest() {
        let mut points = points();
        points[0].created = at("2031-01-01T00:00:00Z");
        let policy = Policy::Restic(restic::Policy {
            keep_tags: vec![vec!["x".to_owned()]],
            ..Default::default()
        });
        assert_eq!(kept(&plan(inventory(points), &policy, at(NOW))), ["p0", "p1"]);
    }

    #[test]
    fn an_empty_inventory_is_an_empty_plan() {
        assert_eq!(
            plan(Inventory::default(), &strict(), at(NOW)).to_string(),
            "0 to remove, 0 to keep"
        );
    }

    #[test]
    fn a_plan_reads_well_and_survives_json() {
        let now = at(NOW);
        let policy = Policy::Sanoid(sanoid::Policy {
            hourly: Some(1),
            ..Default::default()
        });
        let points = [1, 30, 200].map(|n| autosnap("hourly", hours_before(now, n)));
        let plan = plan(inventory(points), &policy, now);
        assert_eq!(
            format!("{plan:#}"),
            "remove  2026-11-21T14:33:00Z  autosnap_2026-11-21_14:33:00_hourly  (hourly older than 60 minutes, and more than 1 of them)\n\
             remove  2026-11-14T12:33:00Z  autosnap_2026-11-14_12:33:00_hourly  (hourly older than 60 minutes, and more than 1 of them)\n\
             keep    2026-11-22T19:33:00Z  autosnap_2026-11-22_19:33:00_hourly  (newest; hourly younger than 60 minutes)\n\
             2 to remove, 1 to keep"
        );
        let json = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
    }
}

mod properties {
    use super::*;

    fn point() -> impl Strategy<Value = Point> {
        let kind = proptest::sample::select(vec![
            "frequently",
            "hourly",
            "daily",
            "weekly",
            "monthly",
            "yearly",
            "hand",
        ]);
        let rare = || proptest::bool::weighted(0.05);
        let tags = proptest::collection::btree_set(
            proptest::sample::select(vec!["a".to_owned(), "b".to_owned()]),
            0..2,
        );
        // Up to three years back, and a little into the future.
        let age = prop_oneof![-500_i64..100_000, -500_i64..95_000_000];
        (
            kind,
            age,
            rare(),
            rare(),
            rare(),
            tags,
            proptest::sample::select(vec!["h1", "h2"]),
        )
            .prop_map(|(kind, age, held, base, good, tags, host)| Point {
                holds: held.then(|| "someone".to_owned()).into_iter().collect(),
                lineage_base: base,
                last_good: good,
                tags,
                host: host.to_owned(),
                ..autosnap(kind, at(NOW) - SignedDuration::from_secs(age))
            })
    }

    fn points() -> impl Strategy<Value = Vec<Point>> {
        proptest::collection::vec(point(), 0..80).prop_map(|mut points| {
            for (n, point) in points.iter_mut().enumerate() {
                point.id = n.to_string();
            }
            points
        })
    }

    fn sanoid_policy() -> impl Strategy<Value = sanoid::Policy> {
        let some = || proptest::option::of(0..12_u32);
        (some(), some(), some(), some(), some(), some()).prop_map(
            |(frequently, hourly, daily, weekly, monthly, yearly)| sanoid::Policy {
                frequently,
                hourly,
                daily,
                weekly,
                monthly,
                yearly,
                ..Default::default()
            },
        )
    }

    fn restic_policy() -> impl Strategy<Value = restic::Policy> {
        let count = || prop_oneof![4 => 0..6_i64, 1 => Just(-1)].prop_map(|n| Count::try_from(n).unwrap());
        let within = || {
            prop_oneof![
                3 => Just(Within::default()),
                1 => (0..2_u32, 0..14_u32, 0..40_u32, 0..50_u32)
                    .prop_map(|(years, months, days, hours)| Within { years, months, days, hours }),
            ]
        };
        let counts = (count(), count(), count(), count(), count(), count());
        let withins = (within(), within(), within(), within(), within(), within());
        let groups = proptest::collection::btree_set(
            proptest::sample::select(vec![GroupBy::Host, GroupBy::Tags, GroupBy::Paths]),
            0..3,
        );
        (counts, withins, groups, any::<bool>(), any::<bool>()).prop_map(|(c, w, group_by, tag, zone)| {
            restic::Policy {
                keep_last: c.0,
                keep_hourly: c.1,
                keep_daily: c.2,
                keep_weekly: c.3,
                keep_monthly: c.4,
                keep_yearly: c.5,
                keep_within: w.0,
                keep_within_hourly: w.1,
                keep_within_daily: w.2,
                keep_within_weekly: w.3,
                keep_within_monthly: w.4,
                keep_within_yearly: w.5,
                keep_tags: if tag {
                    vec![vec!["a".to_owned()]]
                } else {
                    Vec::new()
                },
                group_by,
                time_zone: zone
                    .then(|| Zone::new("z", TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap())),
            }
        })
    }

    fn policy() -> impl Strategy<Value = Policy> {
        prop_oneof![
            sanoid_policy().prop_map(Policy::Sanoid),
            restic_policy().prop_map(Policy::Restic)
        ]
    }

    proptest! {
        #[test]
        fn every_point_is_in_the_plan_once(points in points(), policy in policy(), unseeded in proptest::bool::weighted(0.1)) {
            let mut before: Vec<String> = points.iter().map(|point| point.id.clone()).collect();
            let plan = plan(Inventory { unseeded, ..inventory(points) }, &policy, at(NOW));
            let kept = plan.keep.iter().map(|kept| &kept.point);
            let mut after: Vec<String> = kept.chain(plan.remove.iter().map(|removed| &removed.point)).map(|p| p.id.clone()).collect();
            before.sort();
            after.sort();
            prop_assert_eq!(before, after);
            prop_assert!(plan.keep.iter().all(|kept| !kept.reasons.is_empty()));
            prop_assert!(!unseeded || plan.remove.is_empty());
            prop_assert!(!policy.is_empty() || plan.remove.is_empty());
        }

        #[test]
        fn guarded_points_stay(points in points(), policy in policy()) {
            let now = at(NOW);
            let newest = points.iter().map(|point| point.created).max();
            let newest_past = points.iter().map(|point| point.created).filter(|created| *created <= now).max();
            let plan = plan(inventory(points), &policy, now);
            for removed in &plan.remove {
                let point = &removed.point;
                prop_assert!(point.holds.is_empty() && !point.lineage_base && !point.last_good);
            }
            for newest in [newest, newest_past].into_iter().flatten() {
                prop_assert!(plan.keep.iter().any(|kept| kept.point.created == newest));
            }
        }

        #[test]
        fn planning_again_removes_nothing_more(points in points(), policy in policy()) {
            let first = plan(inventory(points), &policy, at(NOW));
            let left = first.keep.into_iter().map(|kept| kept.point);
            let second = plan(inventory(left), &policy, at(NOW));
            prop_assert!(second.remove.is_empty(), "{}", second);
        }

        #[test]
        fn the_order_of_the_listing_does_not_matter(points in points(), policy in policy()) {
            let mut reversed = points.clone();
            reversed.reverse();
            prop_assert_eq!(
                plan(inventory(points), &policy, at(NOW)),
                plan(inventory(reversed), &policy, at(NOW))
            );
        }

        /// sanoid's loop, written as in sanoid, per type over the points without a guard's word.
        #[test]
        fn sanoids_own_loop_removes_the_same(points in points(), policy in sanoid_policy()) {
            let now = at(NOW);
            let plan = plan(inventory(points.clone()), &Policy::Sanoid(policy.clone()), now);
            let removed: BTreeSet<&String> = plan.remove.iter().map(|removed| &removed.point.id).collect();
            let guarded: BTreeSet<&String> = plan.keep.iter()
                .filter(|kept| kept.reasons.iter().any(|r| matches!(r,
                    KeepReason::Newest | KeepReason::Held { .. } | KeepReason::LineageBase | KeepReason::LastGood)))
                .map(|kept| &kept.point.id).collect();
            let mut expected = BTreeSet::new();
            for kind in Kind::ALL {
                let Some(number) = policy.wanted(kind) else { continue };
                let mut sorted: Vec<&Point> =
                    points.iter().filter(|point| point.name.ends_with(&format!("_{kind}"))).collect();
                sorted.sort_by_key(|point| (point.created, &point.name, &point.id));
                let maxage = now.as_second() - i64::from(number) * policy.period(kind);
                let mut numsnapsthistype = sorted.len();
                for snap in sorted {
                    if snap.created.as_second() < maxage && numsnapsthistype > number as usize {
                        expected.insert(&snap.id);
                        numsnapsthistype -= 1;
                    }
                }
            }
            expected.retain(|id| !guarded.contains(id));
            prop_assert_eq!(removed, expected);
        }

        #[test]
        fn a_larger_number_never_removes_more(points in points(), policy in sanoid_policy(), more in 0..5_u32) {
            let larger = sanoid::Policy { hourly: policy.hourly.map(|n| n + more), ..policy };
            let removes = |policy| plan(inventory(points.clone()), &Policy::Sanoid(policy), at(NOW)).remove.len();
            prop_assert!(removes(larger) <= removes(policy));
        }

        #[test]
        fn no_text_makes_reading_a_name_or_a_duration_panic(text in "\\PC{0,20}", tail in "[0-9ymdh_ly ü-]{0,12}") {
            let _ = Kind::of_name(&format!("autosnap{text}{tail}"));
            let _ = format!("{text}{tail}").parse::<Within>();
            let _ = tail.parse::<Within>();
        }
    }
}

/// Not a benchmark: quadratic work would take minutes here.
#[test]
fn a_hundred_thousand_points_are_planned() {
    let now = at(NOW);
    let points = || (0..100_000).map(|n| autosnap("hourly", now - SignedDuration::from_mins(n)));
    let policy = Policy::Sanoid(sanoid::Policy {
        hourly: Some(48),
        ..Default::default()
    });
    assert_eq!(
        plan(inventory(points()), &policy, now).remove.len(),
        100_000 - 48 * 60 - 1
    );
    let policy = Policy::Restic(restic::Policy {
        keep_daily: Count::Newest(30),
        keep_within_weekly: "1y".parse().unwrap(),
        ..Default::default()
    });
    let plan = plan(inventory(points()), &policy, now);
    assert_eq!(plan.keep.len() + plan.remove.len(), 100_000);
    assert!((30..60).contains(&plan.keep.len()), "{}", plan.keep.len());
}
