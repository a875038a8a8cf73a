package main

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"arch.network/attest/manifest"
)

// result is something that a command writes for programs: what print writes to stdout, or jsonLine to stderr. A type that is one names its
// kind, and nothing else can be written; schema has a JSON Schema for each, made from the type by TestResultSchemas.
type result interface {
	kind() string
}

// list is a result that jsonl writes as one line for each item.
type list interface {
	result
	items() []result
}

// shown is a document as a result. It has a head and a schema of its own: see manifest.Schema.
type shown struct{ manifest.Document }

func (d shown) kind() string { return d.DocumentKind() }

// itemsOf are the items of a list.
func itemsOf[T result](list []T) []result {
	out := make([]result, len(list))
	for i, v := range list {
		out[i] = v
	}
	return out
}

// jsonLine encodes a result as a line of JSON, with its head: apiVersion and kind.
func jsonLine(v result) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if d, ok := v.(shown); ok {
		if err := enc.Encode(d.Document); err != nil {
			return nil, err
		}
		return printableJSON(buf.Bytes()), nil
	}
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	line, ok := bytes.CutPrefix(buf.Bytes(), []byte("{"))
	if !ok {
		return nil, fmt.Errorf("%T is no object", v)
	}
	head := fmt.Appendf(nil, `{"apiVersion":%q,"kind":%q`, manifest.APIVersion, v.kind())
	if !bytes.HasPrefix(line, []byte("}")) {
		head = append(head, ',')
	}
	return printableJSON(append(head, line...)), nil
}

//go:embed schema/*.json
var schemas embed.FS

// resultKinds lists the kinds of results that have a schema, sorted.
func resultKinds() []string {
	entries, err := schemas.ReadDir("schema")
	if err != nil {
		panic(err) // it is compiled in
	}
	kinds := make([]string, len(entries))
	for i, e := range entries {
		kinds[i] = strings.TrimSuffix(e.Name(), ".json")
	}
	return kinds
}

// newJSONTopic tells what programs may rely on.
func newJSONTopic() *cobra.Command {
	return &cobra.Command{Use: "json", Short: "What programs may rely on", Long: `With --json every result is one line of JSON on stdout: an object whose kind says what it is, and whose apiVersion is
` + manifest.APIVersion + `. A command that may be given several things, such as arch hash, writes a line for each; a list is one object.
--output jsonl writes each item of a list as a line of its own kind, --output yaml the same objects as YAML documents. A document
that is shown, such as by arch trust show, is itself.

What is no result is on stderr, one object a line: Note, the kinds that end in Progress, JobOutput for what a job prints, and
at last Error, if the exit status is not 0. A command that fails may have written a result before: what it found out, such as
arch verify.

arch schema KIND prints the JSON Schema of each of

  ` + wrapWords(resultKinds(), 100, "\n  ") + `

As long as apiVersion stays the same
  - a field that a schema requires is there, and a field keeps its name, type, unit and meaning;
  - there may be new fields, and new kinds on stderr, to be ignored; and new values where a string is one of several, such as state;
  - the order of fields, the wording of message, cause, hint, summary, detail and reason, and what is written without --json may change.
The exit status says what came of it, as arch help exit-status tells: ask that first, then the result. The code of an error does not
change its meaning.`}
}
