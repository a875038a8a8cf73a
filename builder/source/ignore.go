package source

import (
	"fmt"
	"path"
	"strings"
)

// Ignore decides which entries of a local tree are left out. The zero value leaves out only ".git".
type Ignore struct {
	rules []ignoreRule
}

type ignoreRule struct {
	elems   []string // of the pattern; "**" stands alone
	negated bool
	dirOnly bool
}

// ParseIgnore reads patterns in the syntax of gitignore(5):
//
//	*.o         any entry of that name, however deep; * and ? match no slash, [a-z] and [^a-z] one character
//	/build      only at the top; a slash at the beginning or inside anchors the pattern there
//	a/**/b      ** is any number of directories; "a/**" is everything below a
//	tmp/        only a directory
//	!keep.o     takes back an earlier pattern; not below a directory that is left out
//	# text      a comment; "\#", "\!" and "\*" are the characters themselves
//
// The last pattern that matches decides. ".git" is left out everywhere, always. Files named .gitignore have no effect,
// and spaces at the end of a pattern count.
func ParseIgnore(patterns []string) (Ignore, error) {
	var ig Ignore
	for _, p := range patterns {
		if p == "" || strings.HasPrefix(p, "#") {
			continue
		}
		r, err := parseRule(p)
		if err != nil {
			return Ignore{}, err
		}
		ig.rules = append(ig.rules, r)
	}
	return ig, nil
}

func parseRule(pattern string) (ignoreRule, error) {
	var r ignoreRule
	p, negated := strings.CutPrefix(pattern, "!")
	p, dirOnly := strings.CutSuffix(p, "/")
	r.negated, r.dirOnly = negated, dirOnly
	anchored := strings.Contains(p, "/")
	p = strings.TrimPrefix(p, "/")
	if p == "" {
		return r, &sourceError{fmt.Sprintf("ignore pattern %q names nothing", pattern), "see gitignore(5)"}
	}
	if !anchored {
		r.elems = append(r.elems, "**")
	}
	for e := range strings.SplitSeq(p, "/") {
		// path.Match knows the same wildcards but for "!" as the negation of a class.
		e = strings.ReplaceAll(e, "[!", "[^")
		if _, err := path.Match(e, ""); err != nil || e == "" {
			return r, &sourceError{fmt.Sprintf("ignore pattern %q is malformed", pattern), `close brackets, and write "\\" before a character that stands for itself`}
		}
		r.elems = append(r.elems, e)
	}
	return r, nil
}

// Match reports whether to leave out the entry at rel, a slash-separated path below the tree's root. It is to be asked
// for directories before what is in them.
func (ig Ignore) Match(rel string, dir bool) bool {
	if path.Base(rel) == ".git" {
		return true
	}
	elems := strings.Split(rel, "/")
	ignored := false
	for _, r := range ig.rules {
		if r.negated == ignored && (dir || !r.dirOnly) && matchElems(r.elems, elems) {
			ignored = !r.negated
		}
	}
	return ignored
}

// matchElems matches element by element. A trailing "**" wants at least one element, any other may stand for none.
// The work is bounded by the product of the lengths: only the last "**" is ever tried again.
func matchElems(pattern, elems []string) bool {
	star, retry := -1, 0
	p, e := 0, 0
	for e < len(elems) {
		switch {
		case p < len(pattern) && pattern[p] == "**":
			if p == len(pattern)-1 {
				return true
			}
			star, retry = p, e
			p++
		case p < len(pattern) && matchElem(pattern[p], elems[e]):
			p++
			e++
		case star >= 0:
			retry++
			p, e = star+1, retry
		default:
			return false
		}
	}
	return p == len(pattern)
}

func matchElem(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}
