//! Rows and columns in every format.

use serde_json::Value;

use crate::output::{Format, Shape, Table, cell};

pub(super) fn render(table: &Table, shape: &Shape) -> String {
    match shape.format {
        Format::Json => json(table),
        Format::JsonStream => {
            let rows: Vec<String> = table.rows.iter().map(|row| object(table, row)).collect();
            lines(rows)
        }
        Format::Csv => csv(table, shape.headers),
        Format::Tabs => tabs(table, shape.headers),
        Format::Aligned => aligned(table, shape.headers),
        Format::Pretty => boxes(table, shape.headers),
    }
}

fn lines(lines: Vec<String>) -> String {
    lines.into_iter().fold(String::new(), |mut text, line| {
        text.push_str(&line);
        text.push('\n');
        text
    })
}

/// An array with a row on each line, as RabbitMQ's tools stream it.
fn json(table: &Table) -> String {
    if table.rows.is_empty() {
        return if table.blank_when_empty { "[]\n" } else { "[\n]\n" }.to_owned();
    }
    let rows: Vec<String> = table.rows.iter().map(|row| object(table, row)).collect();
    format!("[\n{}\n]\n", rows.join("\n,"))
}

/// A row as an object with its keys in the order of the columns.
fn object(table: &Table, row: &[Value]) -> String {
    let pair = |(name, value): (&String, &Value)| format!("{}:{value}", Value::from(name.as_str()));
    let pairs: Vec<String> = table.columns.iter().zip(row).map(pair).collect();
    format!("{{{}}}", pairs.join(","))
}

fn tabs(table: &Table, headers: bool) -> String {
    if table.rows.is_empty() {
        return if table.blank_when_empty { "\n" } else { "" }.to_owned();
    }
    let mut all = Vec::new();
    if headers {
        all.push(table.columns.join("\t"));
    }
    for row in &table.rows {
        let cells: Vec<String> = row.iter().map(cell).collect();
        all.push(cells.join("\t"));
    }
    lines(all)
}

fn csv(table: &Table, headers: bool) -> String {
    let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let mut all = Vec::new();
    if headers && !table.rows.is_empty() {
        let names: Vec<String> = table.columns.iter().map(|name| quote(name)).collect();
        all.push(names.join(","));
    }
    for row in &table.rows {
        let cells: Vec<String> = row.iter().map(|value| quote(&cell(value))).collect();
        all.push(cells.join(","));
    }
    lines(all)
}

/// All cells as text, and the width of each column in characters.
fn measured(table: &Table) -> (Vec<Vec<String>>, Vec<usize>) {
    let cells: Vec<Vec<String>> = table
        .rows
        .iter()
        .map(|row| row.iter().map(cell).collect())
        .collect();
    let mut widths: Vec<usize> = table.columns.iter().map(|name| name.chars().count()).collect();
    for row in &cells {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    (cells, widths)
}

/// Numbers stand to the right.
fn padded(text: &str, width: usize, number: bool) -> String {
    let gap = " ".repeat(width.saturating_sub(text.chars().count()));
    if number {
        format!("{gap}{text}")
    } else {
        format!("{text}{gap}")
    }
}

fn aligned(table: &Table, headers: bool) -> String {
    let (cells, widths) = measured(table);
    let numbers: Vec<bool> = (0..table.columns.len())
        .map(|at| {
            let mut column = table.rows.iter().filter_map(|row| row.get(at));
            !table.rows.is_empty() && column.all(Value::is_number)
        })
        .collect();
    let line = |texts: &[String]| {
        let parts = texts.iter().zip(&widths).zip(&numbers);
        let parts: Vec<String> = parts
            .map(|((text, width), number)| padded(text, *width, *number))
            .collect();
        parts.join("  ").trim_end().to_owned()
    };
    let mut all = Vec::new();
    if headers {
        all.push(line(&table.columns));
    }
    all.extend(cells.iter().map(|row| line(row)));
    lines(all)
}

fn boxes(table: &Table, headers: bool) -> String {
    let (cells, widths) = measured(table);
    let rule = |left: char, middle: char, right: char| {
        let parts: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        format!("{left}{}{right}", parts.join(&middle.to_string()))
    };
    let line = |texts: &[String]| {
        let mut line = String::from("│");
        for (text, width) in texts.iter().zip(&widths) {
            line.push_str(&format!(" {} │", padded(text, *width, false)));
        }
        line
    };
    let mut all = vec![rule('┌', '┬', '┐')];
    let mut rows: Vec<&[String]> = Vec::new();
    if headers {
        rows.push(&table.columns);
    }
    rows.extend(cells.iter().map(Vec::as_slice));
    for (at, row) in rows.iter().enumerate() {
        if at > 0 {
            all.push(rule('├', '┼', '┤'));
        }
        all.push(line(row));
    }
    all.push(rule('└', '┴', '┘'));
    lines(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render_as(format: Format, headers: bool) -> String {
        let rows = vec![
            vec![json!("a \"q\""), json!(7), json!({})],
            vec![json!("längst"), json!(100), json!({"k": 1})],
        ];
        let table = Table::new(&["name", "messages", "arguments"], rows);
        let shape = Shape {
            format,
            headers,
            quiet: false,
        };
        render(&table, &shape)
    }

    #[test]
    fn every_format_of_a_table() {
        assert_eq!(
            render_as(Format::Tabs, true),
            "name\tmessages\targuments\na \"q\"\t7\t[]\nlängst\t100\t[{\"k\",1}]\n"
        );
        assert_eq!(
            render_as(Format::Tabs, false),
            "a \"q\"\t7\t[]\nlängst\t100\t[{\"k\",1}]\n"
        );
        assert_eq!(
            render_as(Format::Csv, true),
            "\"name\",\"messages\",\"arguments\"\n\"a \"\"q\"\"\",\"7\",\"[]\"\n\"längst\",\"100\",\"[{\"\"k\"\",1}]\"\n"
        );
        assert_eq!(
            render_as(Format::Json, true),
            "[\n{\"name\":\"a \\\"q\\\"\",\"messages\":7,\"arguments\":{}}\n,{\"name\":\"längst\",\"messages\":100,\"arguments\":{\"k\":1}}\n]\n"
        );
        assert_eq!(
            render_as(Format::Aligned, true),
            "name    messages  arguments\na \"q\"          7  []\nlängst       100  [{\"k\",1}]\n"
        );
        assert_eq!(
            render_as(Format::Pretty, true),
            "┌────────┬──────────┬───────────┐\n\
             │ name   │ messages │ arguments │\n\
             ├────────┼──────────┼───────────┤\n\
             │ a \"q\"  │ 7        │ []        │\n\
             ├────────┼──────────┼───────────┤\n\
             │ längst │ 100      │ [{\"k\",1}] │\n\
             └────────┴──────────┴───────────┘\n"
        );
    }
}
