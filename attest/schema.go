package attest

import (
	"embed"
	"fmt"
	"slices"
	"strings"
)

//go:embed schema/*.json predicates/*.md
var texts embed.FS

// SchemaNames lists the statements that have a JSON Schema and a page of documentation, sorted.
func SchemaNames() []string {
	return []string{"build-claim", "build-negative", "decision", "job-result", "job-run", "provenance", "verification-summary"}
}

// Schema returns the JSON Schema (2020-12) of a statement, one of SchemaNames.
func Schema(name string) ([]byte, error) { return text(name, "schema/", ".json") }

// PredicateDoc returns the documentation of a statement, one of SchemaNames, in Markdown: purpose, use cases, fields and a
// complete example.
func PredicateDoc(name string) ([]byte, error) { return text(name, "predicates/", ".md") }

// UnknownSchemaError says that there is no such statement.
type UnknownSchemaError struct{ Name string }

func (e *UnknownSchemaError) Error() string {
	return fmt.Sprintf("find schema %q: there is none", e.Name)
}

// Hint lists the names there are.
func (e *UnknownSchemaError) Hint() string {
	return "statements with a schema are " + strings.Join(SchemaNames(), ", ")
}

func text(name, dir, ext string) ([]byte, error) {
	if !slices.Contains(SchemaNames(), name) {
		return nil, &UnknownSchemaError{Name: name}
	}
	data, err := texts.ReadFile(dir + name + ext)
	if err != nil {
		return nil, fmt.Errorf("find schema %q: %w", name, err)
	}
	return data, nil
}
