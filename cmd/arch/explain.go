package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"arch.network/attest"
	"arch.network/attest/manifest"
)

func newExplainCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "explain PATH|CODE",
		Short: "Explain a kind of document, one of its fields, or an error by its code",
		Long: `Explain tells what a kind of document, or a field of one, means: its type, rule, values and fields below it. Of the code of an
error, which --json shows and a node's API answers with, it tells when it comes up and what to do.

The kinds are ` + strings.Join(manifest.Kinds(), ", ") + `. The codes are ` + strings.Join(codeNames(), ", ") + `.`,
		Example:   "  arch explain Build\n  arch explain Job.spec.resources\n  arch explain queue-full\n  arch explain not-reproducible",
		Args:      cobra.ExactArgs(1),
		ValidArgs: append(manifest.Kinds(), codeNames()...),
		RunE: func(_ *cobra.Command, args []string) error {
			if c, ok := findCode(args[0]); ok {
				return a.print(c, c.text)
			}
			e, err := manifest.Explain(args[0])
			if err != nil {
				return unexplained(args[0], err)
			}
			return a.print(explainedField{e}, func(w *screen) { io.WriteString(w, e.String()) })
		},
	}
}

// unexplained adds to an error about a name that is neither of a document nor a code what was meant.
func unexplained(name string, err error) error {
	if strings.Contains(name, ".") {
		return err
	}
	err = fmt.Errorf("%q is no kind of document, and no code of an error", name)
	if slices.Contains(resultKinds(), name) {
		return hinted(err, fmt.Sprintf("it is a kind of result: arch schema %s", name))
	}
	if like, ok := nearest(name, append(codeNames(), manifest.Kinds()...)); ok {
		return hinted(err, "did you mean "+like+"?")
	}
	return hinted(err, "arch explain --help lists both")
}

// explainedField is a kind of document, or a field of one, explained.
type explainedField struct{ manifest.Explanation }

func (explainedField) kind() string { return "Explanation" }

func (c explained) text(s *screen) {
	fmt.Fprintf(s, "%s: ", c.Name)
	if c.Title != "" {
		fmt.Fprintf(s, "%s (HTTP %d)\n  ", c.Title, c.Status)
	}
	fmt.Fprintf(s, "%s\n  what to do: %s\n  exit status: %d\n", c.Meaning, c.Cure, c.Exit)
}

func newSchemaCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "schema KIND",
		Short: "Print the JSON Schema of a kind of document, statement or result",
		Long: `Schema prints a JSON Schema (2020-12) of a kind of document, for editors; of a statement in receipts; or of what commands write with
--json. With yaml-language-server, put this on the first line of a document:

  # yaml-language-server: $schema=build.schema.json

The kinds of documents are ` + strings.Join(manifest.Kinds(), ", ") + `; those of the statements in receipts
are ` + strings.Join(attest.SchemaNames(), ", ") + `; arch help json lists those of results.`,
		Example:   "  arch schema Build > build.schema.json\n  arch schema job-run\n  arch schema BuildResult",
		Args:      cobra.ExactArgs(1),
		ValidArgs: slices.Concat(manifest.Kinds(), attest.SchemaNames(), resultKinds()),
		RunE: func(_ *cobra.Command, args []string) error {
			schema, err := findSchema(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "%s\n", strings.TrimSpace(string(schema)))
			return err
		},
	}
}

// findSchema returns the schema of a kind of document, statement or result.
func findSchema(name string) ([]byte, error) {
	switch {
	case slices.Contains(manifest.Kinds(), name):
		return manifest.Schema(name)
	case slices.Contains(attest.SchemaNames(), name):
		return attest.Schema(name)
	case slices.Contains(resultKinds(), name):
		return schemas.ReadFile("schema/" + name + ".json")
	}
	hint := "arch schema --help lists the documents and statements, arch help json the results"
	if like, ok := nearest(name, slices.Concat(manifest.Kinds(), attest.SchemaNames(), resultKinds())); ok {
		hint = "did you mean " + like + "?"
	}
	return nil, hinted(fmt.Errorf("find schema: %q is no kind of document, statement or result", name), hint)
}
