use super::*;

fn summary(sql: &str) -> (String, String, Option<String>) {
    let summary = summarize(sql);
    (summary.text, summary.operation, summary.collection)
}

#[test]
fn a_summary_names_the_operations_and_their_tables() {
    for (sql, text, operation, collection) in [
        ("SELECT * FROM accounts WHERE id = 7", "SELECT accounts", "SELECT", Some("accounts")),
        ("select 1", "select", "select", None),
        ("-- a note\n/* FROM x */ SELECT 1 FROM [my table];", "SELECT my table", "SELECT", Some("my table")),
        ("SELECT 'it''s FROM x', \"a\"\"b\" FROM `t`", "SELECT t", "SELECT", Some("t")),
        ("SELECT * FROM a, b AS c JOIN d ON a.x = d.x", "SELECT a b d", "SELECT", None),
        ("SELECT x, (SELECT max(y) FROM b), z FROM a, c", "SELECT SELECT b a c", "SELECT", None),
        ("SELECT * FROM (SELECT x FROM a) s, b WHERE x IN (1, 2)", "SELECT SELECT a b", "SELECT", None),
        ("SELECT a FROM t ORDER BY x, y LIMIT 1, 2", "SELECT t", "SELECT", Some("t")),
        ("SELECT a IS DISTINCT FROM b FROM t", "SELECT t", "SELECT", Some("t")),
        ("INSERT INTO a (x, y) SELECT x, y FROM b", "INSERT a SELECT b", "INSERT", None),
        ("INSERT OR REPLACE INTO a VALUES (?1, ?2)", "INSERT a", "INSERT", Some("a")),
        (
            "INSERT INTO a VALUES (1) ON CONFLICT (x) DO UPDATE SET y = replace(y, 'a', 'b')",
            "INSERT a",
            "INSERT",
            Some("a"),
        ),
        ("REPLACE INTO a VALUES (1)", "REPLACE a", "REPLACE", Some("a")),
        ("UPDATE OR IGNORE a SET x = 1, y = 2 FROM b", "UPDATE a b", "UPDATE", None),
        ("SELECT x FROM main.a JOIN \"temp\" . b", "SELECT a b", "SELECT", None),
        ("DELETE FROM a WHERE x = ?", "DELETE a", "DELETE", Some("a")),
        (
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c), d AS (SELECT * FROM a) DELETE FROM b",
            "SELECT SELECT SELECT a DELETE b",
            "DELETE",
            None,
        ),
        ("CREATE TABLE IF NOT EXISTS a (x INTEGER)", "CREATE TABLE a", "CREATE", Some("a")),
        ("DROP INDEX by_name", "DROP INDEX by_name", "DROP", Some("by_name")),
        ("PRAGMA journal_mode = WAL", "PRAGMA journal_mode", "PRAGMA", None),
        ("BEGIN IMMEDIATE", "BEGIN", "BEGIN", None),
        ("SAVEPOINT s1", "SAVEPOINT", "SAVEPOINT", None),
        ("COMMIT", "COMMIT", "COMMIT", None),
        ("", "", "", None),
    ] {
        assert_eq!(summary(sql), (text.into(), operation.into(), collection.map(Into::into)), "{sql}");
    }
}

#[test]
fn a_text_without_literals_keeps_its_parameters() {
    for (sql, expected) in [
        ("SELECT * FROM a WHERE x = 'secret' AND y = ?1", "SELECT * FROM a WHERE x = ? AND y = ?1"),
        ("SELECT x'00ff', 1.5e3, .5, :name -- secret\n, a.b", "SELECT ?, ?, ?, :name , a.b"),
        ("/* secret */ SELECT\n  a1", "SELECT a1"),
        ("SELECT 'open", "SELECT ?"),
    ] {
        assert_eq!(without_literals(sql), expected);
    }
}

#[test]
fn long_and_broken_texts_stay_within_their_limits() {
    let long = format!("SELECT * FROM {} WHERE x IN ({}0)", vec!["tables"; 900].join(", "), "'é', ".repeat(9_000));
    assert!(summarize(&long).text.len() <= MAX_SUMMARY);
    assert!(without_literals(&long).len() <= MAX_TEXT);
    let nested = format!("SELECT {}1", "(SELECT ".repeat(100_000));
    assert!(summarize(&nested).text.len() <= MAX_SUMMARY);
    for broken in ["\"", "[", "`é", "'", "x'", "/*", "--", "$", ".", "é", "SELECT [", "FROM (", ")))", "a\u{feff}b"] {
        let _ = (summarize(broken), without_literals(broken));
    }
}
