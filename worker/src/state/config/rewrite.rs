//! A JSON5 text changed as little as a new value asks for.
//!
//! ```text
//! text ─► its values' places ─► what differs from the new value ─► edits ─► text that means the new value
//! ```
//!
//! **Invariants**
//! - What comes out means exactly the new value; where editing would not get there, it is written anew.
//! - Comments, order, quotes and commas outside of what changes stay as their author left them.

use std::ops::Range;

use serde_json::{Map, Value};

use super::spans::{Inside, Item, Spanned, spans};
use super::text::parse;

/// More changes than this are no edit: the text is written anew.
const MOST_EDITS: usize = 1024;

/// The text of `target`: `text`, which says `current`, with what differs replaced. `None` when that does not get
/// there, and the text is to be written [`anew`].
pub(super) fn rewrite(text: &str, current: &Value, target: &Value) -> Option<String> {
    edited(text, current, target).filter(|rewritten| parse(rewritten).as_ref() == Ok(target))
}

/// The text of `target` without any before it.
pub(crate) fn anew(target: &Value) -> String {
    let mut text = pretty(target, "");
    text.push('\n');
    text
}

fn edited(text: &str, current: &Value, target: &Value) -> Option<String> {
    let mut rewriting = Rewriting { text, edits: Vec::new() };
    rewriting.value(&spans(text)?, current, target);
    let mut edits = rewriting.edits;
    if edits.len() > MOST_EDITS {
        return None;
    }
    // Stable: what is put at the same place stays in the order in which it was put there.
    edits.sort_by_key(|(range, _)| range.start);
    let mut rewritten = String::with_capacity(text.len());
    let mut at = 0;
    for (range, replacement) in edits {
        rewritten.push_str(text.get(at..range.start)?);
        rewritten.push_str(&replacement);
        at = range.end;
    }
    rewritten.push_str(text.get(at..)?);
    Some(rewritten)
}

struct Rewriting<'t> {
    text: &'t str,
    edits: Vec<(Range<usize>, String)>,
}

impl Rewriting<'_> {
    fn value(&mut self, place: &Spanned, current: &Value, target: &Value) {
        if current == target || self.edits.len() > MOST_EDITS {
            return;
        }
        let done = match (&place.inside, current, target) {
            (Inside::Object(items), Value::Object(current), Value::Object(target)) => {
                self.object(place, items, current, target)
            }
            (Inside::Array(items), Value::Array(current), Value::Array(target)) => {
                self.array(place, items, current, target)
            }
            _ => None,
        };
        if done.is_none() {
            let text = pretty(target, &self.indentation(place.span.start));
            self.edits.push((place.span.clone(), text));
        }
    }

    /// `None` when the object has to be written anew.
    fn object(
        &mut self,
        place: &Spanned,
        items: &[Item],
        current: &Map<String, Value>,
        target: &Map<String, Value>,
    ) -> Option<()> {
        // A key that is there twice cannot be told apart.
        if items.len() != current.len() || target.is_empty() {
            return None;
        }
        let stays: Vec<bool> = items.iter().map(|item| target.contains_key(&item.key)).collect();
        let added: Vec<_> = target.iter().filter(|(key, _)| !current.contains_key(*key)).collect();
        let last = self.keep(items, &stays, added.is_empty())?;
        for item in items {
            if let (Some(now), Some(next)) = (current.get(&item.key), target.get(&item.key)) {
                self.value(&item.value, now, next);
            }
        }
        let quoted = self.text[items[last].start..].starts_with(['"', '\'']);
        let written = |(key, value): &(&String, &Value), indentation: &str| {
            let key = if quoted || !is_identifier(key) {
                Value::from(&***key).to_string()
            } else {
                (*key).clone()
            };
            format!("{key}: {}", pretty(value, indentation))
        };
        self.append(place, items, last, &added, written);
        Some(())
    }

    /// `None` when the array has to be written anew.
    fn array(
        &mut self,
        place: &Spanned,
        items: &[Item],
        current: &[Value],
        target: &[Value],
    ) -> Option<()> {
        if target.is_empty() {
            return None;
        }
        let same = |pair: &(&Value, &Value)| pair.0 == pair.1;
        let before = current.iter().zip(target).take_while(same).count();
        let (rest, wanted) = (&current[before..], &target[before..]);
        let behind = rest.iter().rev().zip(wanted.iter().rev()).take_while(same).count();
        let (rest, wanted) = (rest.len() - behind, wanted.len() - behind);
        if wanted > rest && behind > 0 {
            return None;
        }
        let removed = before + wanted.min(rest)..before + rest;
        let stays: Vec<bool> = (0..items.len()).map(|at| !removed.contains(&at)).collect();
        let added = &target[before + rest.min(wanted)..before + wanted];
        let last = self.keep(items, &stays, added.is_empty())?;
        for at in before..before + wanted.min(rest) {
            self.value(&items[at].value, &current[at], &target[at]);
        }
        self.append(place, items, last, added, pretty);
        Some(())
    }

    /// Takes out the items that do not stay. The last one that does.
    fn keep(&mut self, items: &[Item], stays: &[bool], nothing_follows: bool) -> Option<usize> {
        let last = stays.iter().rposition(|stays| *stays)?;
        for (item, _) in items.iter().zip(stays).filter(|(_, stays)| !**stays) {
            let end = item.comma.map_or(item.value.span.end, |comma| comma + 1);
            let follows = self.text[end..].trim_start_matches([' ', '\t']).chars().next();
            // Its line goes with it, unless another item would move behind the comment before it.
            let start = match follows {
                Some('\n' | '\r' | '/' | '}' | ']') | None => {
                    self.text[..item.start].trim_end_matches([' ', '\t', '\n', '\r']).len()
                }
                Some(_) => item.start,
            };
            self.edits.push((start..item.value.span.end, String::new()));
            if let Some(comma) = item.comma {
                self.edits.push((comma..comma + 1, String::new()));
            }
        }
        let commas_end = items.last().is_some_and(|item| item.comma.is_some());
        if let Some(comma) = items[last].comma
            && last + 1 < items.len()
            && nothing_follows
            && !commas_end
        {
            self.edits.push((comma..comma + 1, String::new()));
        }
        Some(last)
    }

    /// Puts items behind the last one.
    fn append<T>(
        &mut self,
        place: &Spanned,
        items: &[Item],
        last: usize,
        added: &[T],
        written: impl Fn(&T, &str) -> String,
    ) {
        if added.is_empty() {
            return;
        }
        let item = &items[last];
        if item.comma.is_none() {
            self.edits.push((item.value.span.end..item.value.span.end, ",".to_owned()));
        }
        let close = place.span.end - 1;
        let end = self.text[..close].trim_end().len();
        let lines = self.text[place.span.clone()].contains('\n');
        let indentation = self.indentation(item.start);
        let (before, between) = match lines {
            true => (format!("\n{indentation}"), format!(",\n{indentation}")),
            false => (" ".to_owned(), ", ".to_owned()),
        };
        let all: Vec<_> = added.iter().map(|item| written(item, &indentation)).collect();
        let after = if items.last().is_some_and(|item| item.comma.is_some()) { "," } else { "" };
        self.edits.push((end..end, format!("{before}{}{after}", all.join(&between))));
    }

    /// What the line of this byte begins with.
    fn indentation(&self, at: usize) -> String {
        let line = self.text[..at].rfind('\n').map_or(0, |end| end + 1);
        let rest = &self.text[line..at];
        rest[..rest.len() - rest.trim_start_matches([' ', '\t']).len()].to_owned()
    }
}

/// A value over several lines, all but the first indented.
fn pretty(value: &Value, indentation: &str) -> String {
    let text = serde_json::to_string_pretty(value).expect("a value is JSON");
    text.replace('\n', &format!("\n{indentation}"))
}

fn is_identifier(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn rewrite(text: &str, target: &Value) -> String {
        let edited = parse(text).ok().and_then(|said| super::rewrite(text, &said, target));
        edited.unwrap_or_else(|| anew(target))
    }

    const FILE: &str = "\
// ours
{
  gateway: { port: 18789, mode: 'local' }, // the usual port
  agents: {
    // who answers
    list: [
      { id: 'main' }, // first
      { id: 'probe', name: 'Probe', } // second
    ],
  },
  ui: { seamColor: '#112233' }
}
";

    fn changed(change: impl FnOnce(&mut Value)) -> String {
        let mut value = parse(FILE).unwrap();
        change(&mut value);
        let rewritten = rewrite(FILE, &value);
        assert_eq!(parse(&rewritten).unwrap(), value);
        rewritten
    }

    #[test]
    fn one_value_changes_and_nothing_else() {
        assert_eq!(changed(|_| {}), FILE);
        let rewritten = changed(|value| value["gateway"]["port"] = json!(19001));
        assert_eq!(rewritten, FILE.replace("18789", "19001"));
    }

    #[test]
    fn an_agent_is_added_behind_the_others_and_every_comment_stays() {
        let added = json!({"id": "beta", "workspace": "/w"});
        let rewritten =
            changed(|value| value["agents"]["list"].as_array_mut().unwrap().push(added));
        let new = ", // second\n      {\n        \"id\": \"beta\",\n        \"workspace\": \"/w\"\n      }\n    ],";
        assert_eq!(rewritten, FILE.replace(" // second\n    ],", new));
    }

    #[test]
    fn an_agent_is_taken_out_with_its_comma() {
        let rewritten =
            changed(|value| _ = value["agents"]["list"].as_array_mut().unwrap().remove(1));
        assert!(rewritten.contains("{ id: 'main' } // first // second\n"), "{rewritten}");
        let rewritten =
            changed(|value| _ = value["agents"]["list"].as_array_mut().unwrap().remove(0));
        assert!(rewritten.contains("list: [ // first\n      { id: 'probe'"), "{rewritten}");
    }

    #[test]
    fn a_key_is_added_as_its_neighbours_are_written() {
        let rewritten = changed(|value| value["gateway"]["bind"] = json!("lan"));
        assert!(rewritten.contains("mode: 'local', bind: \"lan\" }"), "{rewritten}");
        let rewritten = changed(|value| value["cron"] = json!({"enabled": true}));
        assert!(
            rewritten.ends_with("'#112233' },\n  cron: {\n    \"enabled\": true\n  }\n}\n"),
            "{rewritten}"
        );
    }

    #[test]
    fn what_cannot_be_edited_is_written_anew() {
        let value = json!({"a": 2});
        assert_eq!(rewrite("{a: 1, a: 1} // a", &value), "{\n  \"a\": 2\n} // a");
        assert_eq!(rewrite("not json", &value), anew(&value));
        assert_eq!(rewrite("", &value), "{\n  \"a\": 2\n}\n");
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-z'\"/*,\\\\ ]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-d/]{1,2}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// The text of a value with a comment wherever one may be.
    fn commented(value: &Value) -> String {
        let inside: Vec<_> = match value {
            Value::Object(members) => members
                .iter()
                .map(|(key, value)| format!("{key:?} /* k */ : {} // v\n", commented(value)))
                .collect(),
            Value::Array(elements) => elements.iter().map(commented).collect(),
            value => return format!("/* b */ {value} /* a */"),
        };
        let [open, close] = if value.is_object() { ['{', '}'] } else { ['[', ']'] };
        format!("{open} // in\n {} {close}", inside.join("/* c */, // n\n"))
    }

    proptest! {
        #[test]
        fn a_text_full_of_comments_is_edited_too(from in any_value(), to in any_value()) {
            let text = commented(&from);
            prop_assert_eq!(parse(&text), Ok(from));
            prop_assert_eq!(parse(&rewrite(&text, &to)), Ok(to));
        }

        #[test]
        fn an_edited_text_means_the_new_value(from in any_value(), to in any_value(), lines: bool) {
            let text = if lines { anew(&from) } else { from.to_string() };
            let rewritten = edited(&text, &from, &to).unwrap();
            prop_assert_eq!(parse(&rewritten), Ok(to));
        }
    }
}
