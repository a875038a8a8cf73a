package tests

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// decoders are the functions, of the standard library, of others and of ours, that make something of bytes which may be anybody's.
var decoders = map[string]bool{
	"json.Unmarshal": true, "json.NewDecoder": true, "xml.Unmarshal": true, "yaml.NewDecoder": true, "yaml.Unmarshal": true,
	"canonical.Unmarshal": true, "canonical.NewReader": true, "canonical.Transform": true, "canonical.Check": true,
	"tar.NewReader": true, "zip.NewReader": true, "gzip.NewReader": true, "bufio.NewScanner": true, "note.Open": true,
	"binary.Uvarint": true, "armor.Decode": true, "multibase.Decode": true,
}

// notFuzzed are packages that call a decoder and have no fuzz target, each with why it needs none. Everything else has one: a package that begins to
// decode brings it along.
var notFuzzed = map[string]string{
	"agent/control/dashboard": "shows entries of the node's own ledger, and one that it cannot read as such",
	"runner/program":          "reads /proc/self/maps of its own process",
}

// TestDecodersAreFuzzed demands a fuzz target of every package that reads formats. Which functions it feeds is for its author, and for the reader, to see.
func TestDecodersAreFuzzed(t *testing.T) {
	for _, pkg := range listPackages(t) {
		name := strings.TrimPrefix(pkg.ImportPath, module)
		if strings.HasPrefix(name, "tests") {
			continue
		}
		calls, fuzzed := decoding(t, filepath.Join("..", name))
		why, excused := notFuzzed[name]
		switch {
		case len(calls) > 0 && !fuzzed && !excused:
			t.Errorf("package %s decodes, in %s, and has no fuzz target", name, strings.Join(calls, ", "))
		case excused && (fuzzed || len(calls) == 0):
			t.Errorf("package %s needs no excuse any more: %s", name, why)
		}
	}
}

// decoding returns which functions of a package call a decoder, and whether its tests have a fuzz target.
func decoding(t *testing.T, dir string) (calls []string, fuzzed bool) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		test := strings.HasSuffix(file, "_test.go")
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			switch {
			case !ok:
			case test:
				fuzzed = fuzzed || strings.HasPrefix(fn.Name.Name, "Fuzz")
			case callsDecoder(fn):
				calls = append(calls, filepath.Base(file)+": "+fn.Name.Name)
			}
		}
	}
	return calls, fuzzed
}

func callsDecoder(fn *ast.FuncDecl) (found bool) {
	ast.Inspect(fn, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if s, ok := call.Fun.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok {
					found = found || decoders[x.Name+"."+s.Sel.Name]
				}
			}
		}
		return !found
	})
	return found
}
