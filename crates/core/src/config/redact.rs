//! Keeps secrets that someone wrote into the configuration out of the lines that errors quote.
//!
//! The configuration has no place for a secret, so it can only be a mistake; but mistakes are what gets quoted, and
//! the quote ends up in a log. Works on a line of any syntax, by the look of its keys, and changes no column.

/// What is in the name of a key with a secret.
const TELLING: [&str; 5] = ["password", "passphrase", "secret", "token", "credential"];

/// The line with the characters of secrets replaced by `*`, one for one.
pub(crate) fn redact(line: &str) -> String {
    let mut chars: Vec<char> = line.chars().collect();
    let lower: Vec<char> = chars.iter().map(char::to_ascii_lowercase).collect();
    for word in TELLING.map(|word| word.chars().collect::<Vec<_>>()) {
        for at in 0..lower.len().saturating_sub(word.len()) {
            if lower[at..].starts_with(&word) {
                hide_value_of(&mut chars, &lower, at);
            }
        }
    }
    for at in 0..lower.len() {
        if lower[at..].starts_with(&[':', '/', '/']) {
            hide_user_info(&mut chars, at + 3);
        }
    }
    chars.into_iter().collect()
}

/// Of `key = value` or `"key": value`, with a telling word of the key at `at`.
fn hide_value_of(chars: &mut [char], lower: &[char], at: usize) {
    let in_key = |c: &char| c.is_ascii_alphanumeric() || "_-.".contains(*c);
    let key_end = at + lower[at..].iter().take_while(|c| in_key(c)).count();
    let gap = lower[key_end..]
        .iter()
        .take_while(|c| "\"' ".contains(**c))
        .count();
    if !matches!(lower.get(key_end + gap), Some('=' | ':')) {
        return;
    }
    let mut start = key_end + gap + 1;
    start += lower[start..].iter().take_while(|c| **c == ' ').count();
    let quote = lower.get(start).copied().filter(|c| matches!(c, '"' | '\''));
    if quote.is_some() {
        start += 1;
    }
    // A file's name may be seen. What stands in its place and is none may be the secret.
    let names_a_file = lower[at..key_end].ends_with(&['f', 'i', 'l', 'e']);
    if names_a_file && lower.get(start).is_some_and(|c| "/~$.".contains(*c)) {
        return;
    }
    for c in &mut chars[start.min(lower.len())..] {
        let ends = match quote {
            Some(quote) => *c == quote,
            None => matches!(*c, ' ' | ',' | '}'),
        };
        if ends {
            break;
        }
        *c = '*';
    }
}

/// Of `https://user:password@host`, what is between `//` and `@`.
fn hide_user_info(chars: &mut [char], start: usize) {
    let rest = &chars[start.min(chars.len())..];
    let end = rest
        .iter()
        .position(|c| matches!(c, '/' | '"' | '\'' | ' '))
        .unwrap_or(rest.len());
    if let Some(length) = rest[..end].iter().rposition(|c| *c == '@') {
        chars[start..start + length].fill('*');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_starred_and_nothing_else() {
        for (line, wanted) in [
            (r#"password = "hunter2""#, r#"password = "*******""#),
            ("RESTIC_PASSWORD=hunter2", "RESTIC_PASSWORD=*******"),
            (
                r#"{"my-token":"abc","host":"nas"}"#,
                r#"{"my-token":"***","host":"nas"}"#,
            ),
            (r#"{"secret_key": 'é é', a}"#, r#"{"secret_key": '***', a}"#),
            ("password = hunter2", "password = *******"),
            (r#"password_file = "hunter2""#, r#"password_file = "*******""#),
            ("password =", "password ="),
            ("password", "password"),
            (
                r#"password_file = "/run/secrets/restic""#,
                r#"password_file = "/run/secrets/restic""#,
            ),
            (
                r#""password_file":"/run/secrets/restic""#,
                r#""password_file":"/run/secrets/restic""#,
            ),
            (
                r#""rest:https://me:pw@host/x@y""#,
                r#""rest:https://*****@host/x@y""#,
            ),
            ("https://host/a@b", "https://host/a@b"),
        ] {
            assert_eq!(redact(line), wanted);
        }
    }
}
