package binary

import "fmt"

// FormatError says where a module is not well-formed, or uses what is not supported.
type FormatError struct {
	Section string // such as "code"; empty before the first section
	Offset  int    // bytes from the module's start
	Text    string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("decode module: %s section, offset %d: %s", sectionOr(e.Section), e.Offset, e.Text)
}

// LimitError says which limit a module is over.
type LimitError struct {
	Section string
	Offset  int
	What    string // what there is too much of, such as "locals of one function"
	Count   uint64 // as claimed, or as counted when the limit was passed
	Limit   int
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("decode module: %s section, offset %d: %s: %d, more than the limit of %d",
		sectionOr(e.Section), e.Offset, e.What, e.Count, e.Limit)
}

// Hint tells the way out.
func (e *LimitError) Hint() string {
	return "no known compiler makes such a module from ordinary source; split it, or make it smaller"
}

func sectionOr(name string) string {
	if name == "" {
		return "no"
	}
	return name
}
