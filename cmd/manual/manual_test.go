package manual_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"arch.network/cmd/manual"
)

func tree() *cobra.Command {
	root := &cobra.Command{Use: "tool", Short: "Do things", Version: "1"}
	sub := &cobra.Command{
		Use: "make FILE", Short: "Make a thing", Run: func(*cobra.Command, []string) {},
		Long:    "Make makes.\n.so it begins with a dot, and \\fBends\\fP.\n\n  as it is\n\nEXIT STATUS: 0 made; 1 error.",
		Example: "  tool make --with \"a b\" x",
	}
	sub.Flags().StringP("with", "w", "nothing", "what to use")
	root.AddCommand(sub, &cobra.Command{Use: "secret", Hidden: true, Run: func(*cobra.Command, []string) {}})
	return root
}

const wantMake = `.TH "TOOL\-MAKE" "1" "" "tool 1" "tool manual"
.SH "NAME"
tool\-make \- Make a thing
.SH "SYNOPSIS"
.B "tool make"
FILE [flags]
.SH "DESCRIPTION"
Make makes.
\&.so it begins with a dot, and \efBends\efP.
.PP
.RS "2"
.nf
as it is
.fi
.RE
.SH "OPTIONS"
.TP
.B "\-h, \-\-help"
help for make
.TP
.B "\-w, \-\-with string"
what to use (default nothing)
.SH "EXAMPLES"
.RS "2"
.nf
tool make \-\-with "a b" x
.fi
.RE
.SH "EXIT STATUS"
0 made; 1 error.
.SH "SEE ALSO"
tool(1)
`

func TestPages(t *testing.T) {
	book := manual.Book{
		Section: "1", Version: "1", Statuses: []manual.Status{{Status: 0, Meaning: "done"}},
		More: []manual.Chapter{{Title: "Files", Entries: []manual.Entry{{Term: "'odd", Text: "'text"}}}},
	}
	pages := book.Pages(tree())
	var files []string
	for _, p := range pages {
		files = append(files, p.File)
		// What groff warns of, where it is installed, is an error of ours.
		groff, err := exec.LookPath("groff")
		if err != nil {
			continue
		}
		c := exec.Command(groff, "-man", "-ww", "-z", "-Tutf8")
		c.Stdin = strings.NewReader(string(p.Text))
		if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("groff on %s: %v\n%s", p.File, err, out)
		}
	}
	if diff := cmp.Diff([]string{"tool.1", "tool-make.1"}, files); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantMake, string(pages[1].Text)); diff != "" {
		t.Errorf("page (-want +got):\n%s", diff)
	}
	for _, want := range []string{".SH \"COMMANDS\"\n.TP\n.B \"make\"\nMake a thing\n", ".SH \"EXIT STATUS\"\n.TP\n.B \"0\"\ndone\n", ".SH \"FILES\"\n.TP\n.B \"'odd\"\n\\&'text\n"} {
		if !strings.Contains(string(pages[0].Text), want) {
			t.Errorf("the program's page has no %q:\n%s", want, pages[0].Text)
		}
	}
}
