//! What lists have in common: paging, the filter by name, sorting, the choice of columns (management-api 2.1 to 2.3).

use std::cmp::{Ordering, Reverse};

use regex::RegexBuilder;
use serde_json::{Map, Value, json};

use crate::management::{
    answer::{Answer, ApiError},
    call::{Call, Query},
};

const PAGE_SIZE_MAX: usize = 500;
const PAGE_SIZE: usize = 100;
const REGEX_MAX: usize = 1024;
/// What a compiled pattern may take, bytes.
const REGEX_MEMORY: usize = 1 << 20;
/// Columns beyond this are not looked at.
const COLUMNS_MAX: usize = 200;

/// Answers with rows in their default order. Only rows that are shown are rendered, unless they must be sorted.
pub(super) fn list<T>(
    call: &Call,
    rows: Vec<T>,
    name: impl Fn(&T) -> &str,
    render: impl Fn(&T) -> Value,
) -> Result<Answer, ApiError> {
    let as_given = |_: &T, _: &T| Ordering::Equal;
    list_unsorted(call, rows, &name, as_given, |_, _| None, render)
}

/// As [`list`], of rows that come in no order: `order` is their default one, and only what is shown is brought into it.
/// `key` gives what a row is sorted by without rendering it, where it knows how.
pub(super) fn list_unsorted<T>(
    call: &Call,
    mut rows: Vec<T>,
    name: impl Fn(&T) -> &str,
    order: impl Fn(&T, &T) -> Ordering,
    key: impl Fn(&T, &str) -> Option<Key>,
    render: impl Fn(&T) -> Value,
) -> Result<Answer, ApiError> {
    let columns = Columns::parse(&call.query);
    let Some(page) = Page::parse(&call.query)? else {
        rows.sort_by(&order);
        return Ok(plain(call, &rows, render));
    };
    let total = rows.len();
    if let Some(filter) = NameFilter::parse(&call.query)? {
        rows.retain(|row| filter.matches(name(row)));
    }
    let filtered = rows.len();
    let skip = (page.number - 1).saturating_mul(page.size);
    if skip > filtered {
        let text = format!(
            "page: {}, page size: {}, total count: {filtered}",
            page.number, page.size
        );
        return Err(ApiError::refused("page_out_of_range", text));
    }
    let sort = Sort::parse(&call.query);
    let sort_key = |row: &T| match &sort {
        None => Key::default(),
        Some(Sort { path, text, .. }) => {
            key(row, text).unwrap_or_else(|| Key::of(lookup(&render(row), path)))
        }
    };
    let reverse = sort.as_ref().is_some_and(|sort| sort.reverse);
    // Rows that are equal in all keep the order in which they came.
    let mut places: Vec<(Key, usize, T)> = rows
        .into_iter()
        .enumerate()
        .map(|(at, row)| (sort_key(&row), at, row))
        .collect();
    cut(&mut places, skip, page.size, |left, right| {
        let by_key = left.0.cmp(&right.0);
        let by_key = if reverse { by_key.reverse() } else { by_key };
        by_key
            .then_with(|| order(&left.2, &right.2))
            .then(left.1.cmp(&right.1))
    });
    let mut items: Vec<Value> = places.iter().map(|(.., row)| render(row)).collect();
    columns.apply(&mut items);
    Ok(Answer::json(json!({
        "filtered_count": filtered,
        "item_count": items.len(),
        "page": page.number,
        "page_count": filtered.div_ceil(page.size),
        "page_size": page.size,
        "total_count": total,
        "items": items,
    })))
}

/// Keeps the rows of a page, sorted; the others are only told apart from it, which takes time in proportion to their number.
fn cut<T>(rows: &mut Vec<T>, skip: usize, size: usize, order: impl Fn(&T, &T) -> Ordering) {
    if skip > 0 && skip < rows.len() {
        rows.select_nth_unstable_by(skip, &order);
    }
    rows.drain(..skip.min(rows.len()));
    if size < rows.len() {
        rows.select_nth_unstable_by(size, &order);
        rows.truncate(size);
    }
    rows.sort_unstable_by(order);
}

/// A list that is never paged.
pub(super) fn plain<T>(call: &Call, rows: &[T], render: impl Fn(&T) -> Value) -> Answer {
    let mut items: Vec<Value> = rows.iter().map(render).collect();
    if let Some(sort) = Sort::parse(&call.query) {
        sort.apply(&mut items);
    }
    Columns::parse(&call.query).apply(&mut items);
    Answer::json(Value::Array(items))
}

/// A single object.
pub(super) fn single(call: &Call, object: Value) -> Answer {
    let mut items = [object];
    Columns::parse(&call.query).apply(&mut items);
    let [object] = items;
    Answer::json(object)
}

struct Page {
    /// From 1.
    number: usize,
    size: usize,
}

impl Page {
    /// `None` when no page is asked for.
    fn parse(query: &Query) -> Result<Option<Self>, ApiError> {
        let Some(number) = query.get("page") else {
            return Ok(None);
        };
        let integer = |name: &str, text: &str| {
            text.parse::<i64>().map_err(|_no_integer| {
                ApiError::bad_request(format!("{name} should be an integer, actually was '{text}'"))
            })
        };
        let number = integer("page", number)?;
        let size = match query.get("page_size") {
            Some(size) => integer("page_size", size)?,
            None => i64::try_from(PAGE_SIZE).unwrap_or(i64::MAX),
        };
        let invalid = || {
            ApiError::refused(
                "invalid_pagination_parameters",
                format!("Invalid pagination parameters: page number {number} and page size {size}"),
            )
        };
        match (usize::try_from(number), usize::try_from(size)) {
            (Ok(number @ 1..), Ok(size @ 1..=PAGE_SIZE_MAX)) => Ok(Some(Self { number, size })),
            _ => Err(invalid()),
        }
    }
}

enum NameFilter {
    /// Lower case.
    Contains(String),
    Regex(regex::Regex),
    /// An invalid pattern matches nothing.
    Nothing,
}

impl NameFilter {
    fn parse(query: &Query) -> Result<Option<Self>, ApiError> {
        let Some(name) = query.get("name").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        if !query.is_true("use_regex") {
            return Ok(Some(Self::Contains(name.to_lowercase())));
        }
        if name.len() > REGEX_MAX {
            let text = format!("the name pattern is longer than {REGEX_MAX} characters");
            return Err(ApiError::bad_request(text));
        }
        let pattern = RegexBuilder::new(name)
            .case_insensitive(true)
            .size_limit(REGEX_MEMORY)
            .build();
        Ok(Some(pattern.map_or(Self::Nothing, Self::Regex)))
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Contains(part) => name.to_lowercase().contains(part.as_str()),
            Self::Regex(regex) => regex.is_match(name),
            Self::Nothing => false,
        }
    }
}

struct Sort<'a> {
    /// As it was given, and cut at its points.
    text: &'a str,
    path: Vec<&'a str>,
    reverse: bool,
}

impl<'a> Sort<'a> {
    fn parse(query: &'a Query) -> Option<Self> {
        let path = query.get("sort").filter(|path| !path.is_empty())?;
        Some(Self {
            text: path,
            path: path.split('.').collect(),
            reverse: query.is_true("sort_reverse"),
        })
    }

    /// Stable, so that equal rows keep their default order. Missing values count as 0 and come first.
    fn apply(&self, items: &mut [Value]) {
        items.sort_by_cached_key(|item| {
            let key = Key::of(lookup(item, &self.path));
            if self.reverse {
                Directed::Down(Reverse(key))
            } else {
                Directed::Up(key)
            }
        });
    }
}

/// A key in the direction of a sort; all keys of one sort have the same.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Directed {
    Up(Key),
    Down(Reverse<Key>),
}

/// What a row is sorted by: numbers before flags before text before the rest. A missing value counts as 0.
#[derive(Clone, Debug, Default)]
pub(super) struct Key {
    rank: u8,
    number: f64,
    text: String,
}

impl Key {
    pub(super) fn number(number: f64) -> Self {
        Self {
            number,
            ..Self::default()
        }
    }

    pub(super) fn flag(flag: bool) -> Self {
        Self {
            rank: 1,
            number: f64::from(u8::from(flag)),
            text: String::new(),
        }
    }

    pub(super) fn text(text: &str) -> Self {
        Self {
            rank: 2,
            number: 0.0,
            text: text.to_owned(),
        }
    }

    fn of(value: Option<&Value>) -> Self {
        match value {
            None | Some(Value::Null) => Self::default(),
            Some(Value::Number(number)) => Self::number(number.as_f64().unwrap_or(0.0)),
            Some(Value::Bool(flag)) => Self::flag(*flag),
            Some(Value::String(text)) => Self::text(text),
            Some(Value::Array(_) | Value::Object(_)) => Self {
                rank: 3,
                ..Self::default()
            },
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank
            .cmp(&other.rank)
            .then_with(|| self.number.total_cmp(&other.number))
            .then_with(|| self.text.cmp(&other.text))
    }
}

fn lookup<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

/// The columns asked for; none are all.
struct Columns<'a>(Vec<Vec<&'a str>>);

impl<'a> Columns<'a> {
    fn parse(query: &'a Query) -> Self {
        let columns = query.get("columns").unwrap_or("");
        let columns = columns
            .split(',')
            .map(str::trim)
            .filter(|column| !column.is_empty());
        Self(
            columns
                .take(COLUMNS_MAX)
                .map(|column| column.split('.').collect())
                .collect(),
        )
    }

    fn apply(&self, items: &mut [Value]) {
        if self.0.is_empty() {
            return;
        }
        let paths: Vec<&[&str]> = self.0.iter().map(Vec::as_slice).collect();
        for item in items {
            if let Value::Object(object) = item {
                *object = select(std::mem::take(object), &paths);
            }
        }
    }
}

/// Keeps what the paths name. As deep as the longest path, which the caller cannot make deeper than the object. A column
/// inside `arguments` brings all arguments, as in RabbitMQ.
fn select(object: Map<String, Value>, paths: &[&[&str]]) -> Map<String, Value> {
    let mut kept = Map::new();
    for (key, value) in object {
        let below: Vec<&[&str]> = paths
            .iter()
            .filter_map(|path| path.split_first())
            .filter(|(first, _)| **first == key)
            .map(|(_, rest)| rest)
            .collect();
        if below.is_empty() {
            continue;
        }
        let whole = key == "arguments" || below.iter().any(|path| path.is_empty());
        match value {
            Value::Object(inner) if !whole => {
                let inner = select(inner, &below);
                if !inner.is_empty() {
                    kept.insert(key, Value::Object(inner));
                }
            }
            value if whole => {
                kept.insert(key, value);
            }
            _ => {}
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(query: &str) -> Result<Option<(usize, usize)>, String> {
        Page::parse(&Query::parse(query))
            .map(|page| page.map(|page| (page.number, page.size)))
            .map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn pages_are_read_or_refused() {
        assert_eq!(pages(""), Ok(None));
        assert_eq!(pages("page_size=5"), Ok(None));
        assert_eq!(pages("page=2"), Ok(Some((2, 100))));
        assert_eq!(pages("page=1&page_size=500"), Ok(Some((1, 500))));
        for bad in [
            "page=0",
            "page=-1",
            "page=1&page_size=501",
            "page=1&page_size=0",
            "page=1&page_size=1000000000",
        ] {
            let error = pages(bad).unwrap_err();
            assert!(error.contains("invalid_pagination_parameters"), "{bad}: {error}");
        }
        for bad in ["page=x", "page=", "page=1&page_size=x"] {
            assert!(pages(bad).unwrap_err().contains("bad_request"), "{bad}");
        }
    }

    #[test]
    fn names_are_found_by_part_or_by_linear_pattern() {
        let filter = |query: &str| NameFilter::parse(&Query::parse(query)).unwrap().unwrap();
        assert!(filter("name=BC").matches("aBcd"));
        assert!(!filter("name=a.*d").matches("abcd"));
        assert!(filter("name=^A.*d%24&use_regex=true").matches("abcd"));
        assert!(!filter("name=(&use_regex=true").matches("("));
        let catastrophic = filter("name=(a%2B)%2B%24&use_regex=true");
        assert!(!catastrophic.matches(&format!("{}!", "a".repeat(100_000))));
        let long = format!("name={}&use_regex=true", "a".repeat(2000));
        assert!(NameFilter::parse(&Query::parse(&long)).is_err());
    }

    #[test]
    fn a_page_is_cut_out_of_rows_in_no_order() {
        let rows: Vec<u32> = (0..1000).map(|at| at * 7919 % 1000).collect();
        for (skip, size) in [(0, 10), (10, 10), (995, 10), (1000, 10), (0, 2000)] {
            let mut page = rows.clone();
            cut(&mut page, skip, size, Ord::cmp);
            let expected: Vec<u32> = (0..1000).skip(skip).take(size).collect();
            assert_eq!(page, expected, "{size} behind {skip}");
        }
    }

    #[test]
    fn rows_sort_by_dotted_path_with_missing_values_first() {
        let mut rows = vec![
            json!({"n": 1, "s": {"rate": 2.5}}),
            json!({"n": 2}),
            json!({"n": 3, "s": {"rate": 1}}),
        ];
        let query = Query::parse("sort=s.rate&sort_reverse=true");
        Sort::parse(&query).unwrap().apply(&mut rows);
        let order: Vec<_> = rows.iter().map(|row| row["n"].as_i64().unwrap()).collect();
        assert_eq!(order, [1, 3, 2]);
        assert!(Sort::parse(&Query::parse("sort=")).is_none());
    }

    #[test]
    fn columns_keep_nesting_and_all_arguments() {
        let query = Query::parse("columns=name,stats.a.rate,arguments.x,gone");
        let mut rows = [
            json!({"name": "q", "vhost": "/", "stats": {"a": {"rate": 1, "b": 2}, "c": 3},
                               "arguments": {"x": 1, "y": 2}}),
        ];
        Columns::parse(&query).apply(&mut rows);
        assert_eq!(
            rows[0],
            json!({"name": "q", "stats": {"a": {"rate": 1}}, "arguments": {"x": 1, "y": 2}})
        );
    }
}
