/* Status codes and their reason phrases (RFC 9110 section 15 and the IANA registry). */
#pragma once

#include "base/span.h"

/* "Not Found" for 404; "Unknown" for a code without a registered phrase. */
stk_span stk_http_status_reason(unsigned status);
