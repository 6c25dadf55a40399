//! [`Line`]: the straight line through measured points.

/// The straight line with the least squares of vertical distances to some points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line {
    /// Its increase per unit of x.
    pub(crate) slope: f64,
    /// Its value at 0.
    pub(crate) intercept: f64,
    /// The distance of the farthest point, as a share of that point's value.
    pub(crate) worst_residual: f64,
}

impl Line {
    /// Fits a line to points; `None` unless two of them differ in x.
    pub(crate) fn fit(points: &[(f64, f64)]) -> Option<Self> {
        let count = points.len() as f64;
        let (x, y) = points.iter().fold((0.0, 0.0), |(sum_x, sum_y), (x, y)| (sum_x + x, sum_y + y));
        let (mean_x, mean_y) = (x / count, y / count);
        let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        if points.len() < 2 || spread == 0.0 {
            return None;
        }
        let slope = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / spread;
        let mut line = Self { slope, intercept: mean_y - slope * mean_x, worst_residual: 0.0 };
        let residuals = points.iter().filter(|(_, y)| *y != 0.0).map(|(x, y)| ((line.at(*x) - y) / y).abs());
        line.worst_residual = residuals.fold(0.0, f64::max);
        Some(line)
    }

    /// Returns its value at `x`.
    pub(crate) fn at(&self, x: f64) -> f64 {
        self.intercept + self.slope * x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_on_a_line_give_that_line() {
        let line = Line::fit(&[(2.0, 7.0), (6.0, 15.0), (12.0, 27.0)]).unwrap();
        assert!((line.slope - 2.0).abs() < 1e-9 && (line.intercept - 3.0).abs() < 1e-9, "{line:?}");
        assert!(line.worst_residual < 1e-9);
        assert!((line.at(100.0) - 203.0).abs() < 1e-9);
    }

    #[test]
    fn the_farthest_point_is_reported() {
        let line = Line::fit(&[(0.0, 10.0), (1.0, 13.0), (2.0, 10.0)]).unwrap();
        assert_eq!((line.slope, line.intercept), (0.0, 11.0));
        assert!((line.worst_residual - 2.0 / 13.0).abs() < 1e-9);
    }

    #[test]
    fn one_point_is_no_line() {
        assert_eq!(Line::fit(&[]), None);
        assert_eq!(Line::fit(&[(1.0, 2.0), (1.0, 3.0)]), None);
    }
}
