package wire

import "net/http"

// Code is a kind of problem. Its name never changes its meaning.
type Code struct {
	Name    string `json:"code"`
	Status  int    `json:"status"` // of HTTP
	Title   string `json:"title"`
	Meaning string `json:"meaning"` // when it comes up
	Cure    string `json:"cure"`    // what to do
}

// The codes of problems.
const (
	CodeUnknown   = "unknown-job"
	CodeForgotten = "job-forgotten"
	CodeFull      = "queue-full"
	CodeEnvelope  = "bad-envelope"
	CodeLagged    = "lagged"
	CodeDenied    = "denied"
	CodeStep      = "wrong-state"
	CodeDisk      = "node-disk-full"
	CodeInternal  = "internal"
	CodeRequest   = "bad-request"
	CodeTooLarge  = "too-large"
	CodeMedia     = "wrong-media-type"
	CodeNotFound  = "not-found"
	CodeMethod    = "wrong-method"
	CodeOperator  = "operator-only"
	CodeReading   = "reading-closed"
	CodeUnsigned  = "untrusted-signature"
	CodeHost      = "foreign-host"
	CodeOrigin    = "cross-origin"
	CodeBusy      = "busy"
	CodeNotServed = "not-served"
)

// Codes lists every code there is, with what it means and what to do.
func Codes() []Code {
	return []Code{
		{CodeUnknown, http.StatusNotFound, "No such job", "No job of the node has this id or name, or several have ids that begin like this.", "list the jobs it knows: arch jobs"},
		{CodeForgotten, http.StatusGone, "Beyond retention", "The job was refused, failed or was cancelled longer ago than the policy retains it. The ledger keeps the decisions about it.", "read its entry in the ledger: arch ledger prove INDEX --ledger DIR"},
		{CodeFull, http.StatusTooManyRequests, "The queue is full", "As many jobs wait as the policy lets wait, in all or of one owner. Nothing was kept of this one.", "submit it again later, or raise queue.max or queue.perOwner in the policy"},
		{CodeEnvelope, http.StatusBadRequest, "No valid envelope", "What was handed in is no DSSE envelope of a valid document of the kind that is due. Nothing was kept.", "check the document: arch check FILE"},
		{CodeLagged, http.StatusGone, "The reader was too slow", "The events that were asked for are no longer kept.", "go on from the event that next names, and read the jobs anew"},
		{CodeDenied, http.StatusForbidden, "Not allowed", "Those who signed it may not do this.", "have it signed by those whom the trust root names for it"},
		{CodeStep, http.StatusConflict, "Not in this state", "A job in this state cannot become what was asked for.", "see how it stands: arch job show ID"},
		{CodeDisk, http.StatusInsufficientStorage, "The node's disk is full", "The node could not write what was handed in, and kept nothing of it.", "hand it in again when its operator has made room where its state lies"},
		{CodeInternal, http.StatusInternalServerError, "The node could not do it", "Something failed that is not the caller's doing.", "read the node's log: journalctl -u arch-node-agent"},
		{CodeRequest, http.StatusBadRequest, "No valid request", "A parameter or the body of the request is not what the API describes; what is unknown is refused, too.", "compare it with /openapi.json"},
		{CodeTooLarge, http.StatusRequestEntityTooLarge, "Too large", "The body is over the limit. It was not read.", "make the document smaller, or name large content by digest"},
		{CodeMedia, http.StatusUnsupportedMediaType, "Wrong media type", "The body is not of a type that is taken here, or is compressed.", "send Content-Type: application/json, and no Content-Encoding"},
		{CodeNotFound, http.StatusNotFound, "No such resource", "The API has no such path, or the resource has nothing of that name or number.", "see which there are: /openapi.json"},
		{CodeMethod, http.StatusMethodNotAllowed, "Wrong method", "The resource is there, but not for this method.", "see which methods it has: /openapi.json"},
		{CodeOperator, http.StatusForbidden, "For operators only", "This is for users of the node's machine who operate it. Everybody else hands in signed directives.", "use the node's socket as root or as a configured operator, or sign a Directive"},
		{CodeReading, http.StatusForbidden, "Reading is closed", "The node lets only its operators read.", "use the node's socket as an operator, or start the node with --read"},
		{CodeUnsigned, http.StatusForbidden, "Nobody known signed it", "Over the network, and from users who are no operators, only documents are taken that somebody signed whom the trust root names.", "sign it with a key of the trust root: arch sign FILE"},
		{CodeHost, http.StatusMisdirectedRequest, "Not this node's name", "The Host header names neither an address nor a name of this node. A page of another site may have been pointed here.", "use its address, or start the node with --host NAME"},
		{CodeOrigin, http.StatusForbidden, "From another site", "A browser sent this on behalf of a page of another site.", "open the node's own address"},
		{CodeBusy, http.StatusServiceUnavailable, "Too many readers", "As many streams are open as the node lets be open.", "close some, or try again later"},
		{CodeNotServed, http.StatusNotFound, "Not served here", "The node runs without what this resource shows.", "see what it runs with: arch node status"},
	}
}
