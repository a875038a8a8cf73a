// Package control is how people and programs talk to a node: HTTP and JSON over a Unix socket and, if somebody wants it, over TCP. openapi.json
// describes every resource; package wire holds what travels, package client asks, package dashboard shows.
//
// Who may do what does not depend on anything secret. The kernel says who is at the other end of the socket: root, the node's own
// user and those whom Options.Operators names operate the node: they read, hand in jobs, and act. Everybody else, on the socket and on
// TCP, reads if Options.Reading says so, and changes nothing but by documents that somebody signed whom the node knows
// (Options.Known). There is no password and no token, so there is none to steal: neither a page of another site (Host and Origin are
// checked) nor a proxy can act for an operator.
//
// Everything from outside is bounded before it is read: headers, bodies, connections, streams, and the time that each may take. A
// reader of a stream who is too slow is dropped. What the node says of its own failures goes to the log, never to the other end.
package control
