// promql-selectors says what expressions of PromQL ask for: a JSON array of expressions on standard input, and for each an object on
// standard output with the series that it selects and the labels that it groups and matches by. It reads them with Prometheus' own parser.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

type matcher struct {
	Label string `json:"label"`
	Op    string `json:"op"`
	Value string `json:"value"`
}

type selector struct {
	Name     string    `json:"name"`
	Matchers []matcher `json:"matchers"`
}

type asked struct {
	Selectors []selector `json:"selectors"`
	// Of `by`, `without`, `on`, `ignoring`, `group_left` and `group_right`.
	Labels []string `json:"labels"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "promql-selectors:", err)
		os.Exit(1)
	}
}

func run() error {
	var expressions []string
	if err := json.NewDecoder(os.Stdin).Decode(&expressions); err != nil {
		return err
	}
	all := make([]asked, 0, len(expressions))
	promql := parser.NewParser(parser.Options{})
	for _, text := range expressions {
		expression, err := promql.ParseExpr(text)
		if err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
		all = append(all, of(expression))
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

func of(expression parser.Expr) asked {
	found := asked{Selectors: []selector{}, Labels: []string{}}
	parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
		switch node := node.(type) {
		case *parser.VectorSelector:
			found.Selectors = append(found.Selectors, selected(node))
		case *parser.AggregateExpr:
			found.Labels = append(found.Labels, node.Grouping...)
		case *parser.BinaryExpr:
			if matching := node.VectorMatching; matching != nil {
				found.Labels = append(found.Labels, matching.MatchingLabels...)
				found.Labels = append(found.Labels, matching.Include...)
			}
		}
		return nil
	})
	return found
}

// selected names the series; a matcher of the name itself is left among the matchers where it is no equality.
func selected(node *parser.VectorSelector) selector {
	series := selector{Name: node.Name, Matchers: []matcher{}}
	for _, it := range node.LabelMatchers {
		if it.Name == labels.MetricName && it.Type == labels.MatchEqual {
			series.Name = it.Value
			continue
		}
		series.Matchers = append(series.Matchers, matcher{it.Name, it.Type.String(), it.Value})
	}
	return series
}
