//! Columns as Docker sets them: three spaces between, no column under ten characters, the last one not filled. Pure.

const PADDING: usize = 3;
const MIN_WIDTH: usize = 10;

/// The least width of a column of `top`.
const WIDE: usize = 20;

/// Sets rows whose cells are separated by tabs. Rows may have different numbers of cells.
pub fn format(rows: &[String]) -> String {
    set(rows, MIN_WIDTH)
}

/// The same with wide columns.
pub fn format_wide(rows: &[String]) -> String {
    set(rows, WIDE)
}

fn set(rows: &[String], least: usize) -> String {
    let rows: Vec<Vec<&str>> = rows.iter().map(|row| row.split('\t').collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows
                .iter()
                // A row's last cell ends with the line and fills no column.
                .filter(|row| column + 1 < row.len())
                .map(|row| row[column].chars().count() + PADDING);
            cells.max().unwrap_or(0).max(least)
        })
        .collect();
    let lines = rows.iter().map(|row| {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            // What an image's author has written must not command the reader's terminal.
            let obeyed = |c: char| c.is_control() && c != '\n';
            line.extend(cell.chars().map(|c| if obeyed(c) { ' ' } else { c }));
            if column + 1 < row.len() {
                let fill = widths[column].saturating_sub(cell.chars().count());
                line.extend(std::iter::repeat_n(' ', fill));
            }
        }
        line
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_three_apart_and_at_least_ten_wide() {
        let rows = [
            "REPOSITORY\tTAG\tIMAGE ID\tSIZE".to_owned(),
            "bb\tlatest\t4468c22a01ac\t1.99MB".to_owned(),
        ];
        assert_eq!(
            format(&rows),
            "REPOSITORY   TAG       IMAGE ID       SIZE\n\
             bb           latest    4468c22a01ac   1.99MB"
        );
    }

    #[test]
    fn an_empty_middle_cell_keeps_its_column() {
        let rows = ["A\tB\tC".to_owned(), "1\t\t3".to_owned()];
        assert_eq!(
            format(&rows),
            "A         B         C\n1                   3"
        );
    }

    #[test]
    fn a_cell_cannot_command_a_terminal() {
        let rows = ["\u{1b}[2J\u{9b}\tx\r".to_owned()];
        assert_eq!(format(&rows), " [2J      x ");
    }

    #[test]
    fn width_is_counted_in_characters() {
        let rows = ["123456789…\tx".to_owned(), "1\ty".to_owned()];
        assert_eq!(format(&rows), "123456789…   x\n1            y");
    }
}
