//! Writes the rows that the tests have recorded into docs/operations.md; with `--check` it only checks that they are
//! there, ignoring their figures.

use std::process::ExitCode;

use realtime_tests::{Fault, Generated, difference, run_generator};

fn main() -> ExitCode {
    run_generator("fault-table", run)
}

fn run(check: bool) -> Result<(), String> {
    let table = Generated::find("operations.md", "fault-table")?;
    let rows: Vec<String> = Fault::recorded().iter().map(ToString::to_string).collect();
    if rows.is_empty() {
        return Err("no test has recorded anything: run tests/run.sh".to_owned());
    }
    if !check {
        return table.replace(&format!("{}\n{}\n", Fault::HEAD, rows.join("\n")));
    }
    let written: Vec<String> = table.text.lines().skip(2).map(Fault::without_figures).collect();
    let recorded: Vec<String> = rows.iter().map(|row| Fault::without_figures(row)).collect();
    if written == recorded {
        Ok(())
    } else {
        let difference = difference(&written, &recorded);
        Err(format!(
            "docs/operations.md does not say what the tests have seen (- page, + tests):{difference}"
        ))
    }
}
