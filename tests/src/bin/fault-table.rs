//! Puts the rows that the tests have recorded into docs/operations.md; with `--check` it only says whether they are
//! there, whatever their figures.

use std::{env, fs, process::ExitCode};

use realtime_tests::Fault;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
const BEGIN: &str = "<!-- The tests write this table: fault-table -->\n";
const END: &str = "<!-- end of fault-table -->";

#[allow(clippy::print_stderr, reason = "it is a program")]
fn main() -> ExitCode {
    let check = env::args().nth(1).is_some_and(|argument| argument == "--check");
    match run(check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("fault-table: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(check: bool) -> Result<(), String> {
    let page = fs::read_to_string(PAGE).map_err(|error| format!("{PAGE}: {error}"))?;
    let (before, rest) = page.split_once(BEGIN).ok_or(format!("{PAGE}: no line {BEGIN}"))?;
    let (table, after) = rest.split_once(END).ok_or(format!("{PAGE}: no line {END}"))?;
    let rows: Vec<String> = Fault::recorded().iter().map(ToString::to_string).collect();
    if rows.is_empty() {
        return Err("no test has recorded anything: run tests/run.sh".to_owned());
    }
    if !check {
        let table = format!("{}\n{}\n", Fault::HEAD, rows.join("\n"));
        return fs::write(PAGE, format!("{before}{BEGIN}{table}{END}{after}"))
            .map_err(|error| format!("{PAGE}: {error}"));
    }
    let written: Vec<String> = table.lines().skip(2).map(Fault::without_figures).collect();
    let recorded: Vec<String> = rows.iter().map(|row| Fault::without_figures(row)).collect();
    let only = |mark: &str, of: &[String], other: &[String]| {
        let lines = of.iter().filter(|line| !other.contains(line));
        lines.map(|line| format!("\n{mark} {line}")).collect::<String>()
    };
    let difference = only("-", &written, &recorded) + &only("+", &recorded, &written);
    if written == recorded {
        Ok(())
    } else {
        Err(format!(
            "docs/operations.md does not say what the tests have seen (- page, + tests):{difference}"
        ))
    }
}
