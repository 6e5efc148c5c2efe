/* The protocols that a listening address or a connection may speak. */
#pragma once

enum stk_proto {
    STK_PROTO_HTTP1,
    STK_PROTO_UWSGI,
    STK_PROTO_SCGI,
    STK_PROTO_FCGI,
    STK_PROTO_UNTOLD, /* its first bytes will tell; of a connection: they have not come yet */
    STK_PROTO_COUNT,
};
